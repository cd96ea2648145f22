"""The connection, against a real Mosquitto, a bad network and a hostile broker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time

import pytest

from runtime.mqtt import BrokerAddress, Connection, Publication
from schemas.errors import Disconnected, LinkError, PayloadTooLarge
from schemas.topics import Topics
from tests.mqtt_helpers import DEADLINE_S, listen, payloads, quick, wait_error, wait_for, wait_lost
from tests.tcp_proxy import TcpProxy

TOPICS = Topics()
DRAFT = TOPICS.draft("agent-1", "worker-1")
STATUS = TOPICS.agent_status("agent-1")
OPEN = TOPICS.open("agent-1", "worker-1")
ONLINE = Publication(STATUS, b"online")
OFFLINE = Publication(STATUS, b"offline")


# ------------------------------------------------------------------------------------------- messages


def test_a_message_comes_in_with_its_topic_its_bytes_and_its_time(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    inbox = listen(worker, TOPICS.drafts_for("worker-1"))
    assert worker.wait_connected(DEADLINE_S)
    before = time.monotonic()
    agent.publish(DRAFT, b"\x00\xff draft")
    message = inbox.get(DEADLINE_S)
    assert message is not None
    assert (message.topic, message.payload, message.retained) == (DRAFT, b"\x00\xff draft", False)
    assert before <= message.received_at <= time.monotonic()


def test_one_inbox_can_wait_for_several_topics(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    inbox = listen(worker, TOPICS.drafts_for("worker-1"), TOPICS.opens_for("worker-1"), qos=1)
    assert worker.wait_connected(DEADLINE_S)
    agent.publish(OPEN, b"open", qos=1)
    agent.publish(DRAFT, b"draft")
    assert sorted(payloads(inbox, 2)) == [b"draft", b"open"]


def test_each_inbox_gets_only_what_it_asked_for(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    drafts = listen(worker, TOPICS.drafts_for("worker-1"))
    opens = listen(worker, TOPICS.opens_for("worker-1"), qos=1)
    assert worker.wait_connected(DEADLINE_S)
    agent.publish(DRAFT, b"draft")
    agent.publish(OPEN, b"open", qos=1)
    assert payloads(opens, 1) == [b"open"]
    assert payloads(drafts, 1) == [b"draft"]
    assert len(drafts) == len(opens) == 0


def test_a_retained_message_is_told_apart_from_a_live_one(private_broker, connect):
    broker = private_broker()
    agent = connect("agent-1", at=broker)
    agent.publish(STATUS, b"from before", qos=1, retain=True)
    agent.publish(OPEN, b"so that the first has arrived", qos=1)
    worker = connect("worker-1", at=broker)
    inbox = listen(worker, TOPICS.all_agent_status(), qos=1)
    first = inbox.get(DEADLINE_S)
    agent.publish(STATUS, b"live", qos=1, retain=True)
    second = inbox.get(DEADLINE_S)
    assert first is not None
    assert second is not None
    assert (first.payload, first.retained) == (b"from before", True)
    assert (second.payload, second.retained) == (b"live", False)


def test_a_full_inbox_drops_the_oldest_message_visibly(connect, caplog):
    worker, agent = connect("worker-1"), connect("agent-1")
    inbox = listen(worker, TOPICS.drafts_for("worker-1"), max_queued=4)
    assert worker.wait_connected(DEADLINE_S)
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            agent.publish(DRAFT, bytes([number]))
        wait_for(lambda: inbox.num_dropped == 16)
    assert [p[0] for p in payloads(inbox, 4)] == [16, 17, 18, 19]
    assert len([r for r in caplog.records if "the oldest are dropped" in r.getMessage()]) == 1


def test_small_messages_are_not_held_back(connect):
    assert connect("agent-1")._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ------------------------------------------------------------------------------------ birth, will, end


def test_birth_will_and_farewell_say_where_a_client_is(private_broker, connect):
    broker = private_broker()
    watcher = connect("operator-1", at=broker)
    inbox = listen(watcher, TOPICS.all_agent_status(), TOPICS.all_worker_status(), qos=1)
    assert watcher.wait_connected(DEADLINE_S)
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", at=broker, port=proxy.port, birth=ONLINE, will=OFFLINE, backoff=quick())
        assert payloads(inbox, 1) == [b"online"]
        proxy.cut()
        assert payloads(inbox, 2) == [b"offline", b"online"]
        agent.stop(Publication(STATUS, b"left"))
        wait_for(lambda: proxy.num_connections == 0)
    # What comes next after the farewell is not the will.
    connect("worker-1", at=broker).publish(TOPICS.worker_status("worker-1"), b"another", qos=1)
    assert payloads(inbox, 2) == [b"left", b"another"]


def test_a_new_birth_is_published_now_and_at_each_reconnect(private_broker, connect):
    broker = private_broker()
    watcher = connect("operator-1", at=broker)
    inbox = listen(watcher, TOPICS.all_agent_status(), qos=1)
    assert watcher.wait_connected(DEADLINE_S)
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", at=broker, port=proxy.port, birth=ONLINE, backoff=quick())
        agent.set_birth(Publication(STATUS, b"busy"))
        assert payloads(inbox, 2) == [b"online", b"busy"]
        proxy.cut()
        assert payloads(inbox, 1) == [b"busy"]


def test_a_stopped_connection_wakes_its_readers_and_publishes_no_more(connect):
    agent = connect("agent-1")
    inbox = listen(agent, TOPICS.verdict("agent-1"))
    stopper = threading.Timer(0.05, agent.stop)
    stopper.start()
    assert inbox.get(None) is None
    stopper.join()
    with pytest.raises(Disconnected):
        agent.publish(DRAFT, b"x")


def test_a_connection_that_never_found_its_broker_stops_at_once():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    connection = Connection(BrokerAddress("127.0.0.1", port), backoff=quick())
    connection.start()
    wait_for(lambda: connection.last_error)
    start = time.monotonic()
    connection.stop(OFFLINE)
    assert time.monotonic() - start < 2.0


def test_stopping_ends_even_where_the_link_takes_nothing_any_more(connect, broker):
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", port=proxy.port)
        proxy.stall()
        with pytest.raises(Disconnected, match="takes no data"):  # noqa: PT012  some publication will
            for _ in range(2000):
                agent.publish(DRAFT, bytes(50_000))
        start = time.monotonic()
        agent.stop(OFFLINE)
        assert time.monotonic() - start < 5.0


# --------------------------------------------------------------------------------------------- faults


def test_a_broker_killed_and_restarted_finds_everything_in_place_again(private_broker, connect):
    broker = private_broker()
    worker = connect("worker-1", at=broker, backoff=quick())
    inbox = listen(worker, TOPICS.drafts_for("worker-1"))
    statuses = listen(worker, TOPICS.all_agent_status(), qos=1)
    agent = connect("agent-1", at=broker, birth=ONLINE, will=OFFLINE, backoff=quick())
    assert payloads(statuses, 1) == [b"online"]
    broker.kill()
    for connection in (agent, worker):
        wait_lost(connection)
        assert connection.last_error
    broker.restart()
    for connection in (worker, agent):
        assert connection.wait_connected(DEADLINE_S)
        assert connection.last_error is None
    assert payloads(statuses, 1) == [b"online"]
    agent.publish(DRAFT, b"again")
    assert payloads(inbox, 1) == [b"again"]


def test_nothing_is_queued_while_there_is_no_connection(private_broker, connect):
    broker = private_broker()
    worker = connect("worker-1", at=broker, backoff=quick())
    inbox = listen(worker, TOPICS.drafts_for("worker-1"), TOPICS.opens_for("worker-1"), qos=1)
    agent = connect("agent-1", at=broker, backoff=quick())
    broker.kill()
    wait_lost(agent)
    with pytest.raises(Disconnected, match=r"broker 127\.0\.0\.1"):
        agent.publish(DRAFT, b"stale", alias=True)
    with pytest.raises(Disconnected, match=r"broker 127\.0\.0\.1"):
        agent.publish(OPEN, b"stale", qos=1)
    broker.restart()
    assert worker.wait_connected(DEADLINE_S)
    assert agent.wait_connected(DEADLINE_S)
    agent.publish(OPEN, b"fresh", qos=1)
    assert payloads(inbox, 1) == [b"fresh"]


def test_what_was_never_acknowledged_is_not_sent_again_behind_its_owners_back(broker, connect):
    inbox = listen(connect("worker-1"), TOPICS.opens_for("worker-1"), qos=1)
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", port=proxy.port, backoff=quick())
        proxy.stall()
        agent.publish(OPEN, b"lost on the way", qos=1)
        proxy.refuse()  # else the agent could be back before anyone has seen that it was gone
        proxy.cut()
        proxy.resume()
        wait_lost(agent)
        proxy.accept()
        assert agent.wait_connected(DEADLINE_S)
        agent.publish(OPEN, b"sent by its owner", qos=1)
        assert payloads(inbox, 1) == [b"sent by its owner"]


def test_a_broker_that_acknowledges_nothing_bounds_what_is_in_flight(private_broker, connect):
    broker = private_broker()
    agent = connect("agent-1", at=broker)
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LinkError, match="has not acknowledged"):
            for _ in range(200):
                agent.publish(OPEN, b"x", qos=1)
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def test_two_processes_under_one_name_are_told_so(private_broker, connect, caplog):
    broker = private_broker()
    with caplog.at_level(logging.WARNING):
        connect("agent-1", at=broker, backoff=quick())
        connect("agent-1", at=broker, backoff=quick(), wait=False)
        wait_for(lambda: "no other process connects under this name" in caplog.text)
    assert len({r.getMessage() for r in caplog.records}) == 2  # lost, then contested


# -------------------------------------------------------------------------------------- topic aliases


def test_an_alias_shrinks_the_header_to_eight_bytes(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    inbox = listen(worker, TOPICS.drafts_for("worker-1"))
    assert worker.wait_connected(DEADLINE_S)
    counts = []
    for alias in (False, True, True):
        before = agent.bytes_sent
        agent.publish(DRAFT, bytes(50), alias=alias)
        assert payloads(inbox, 1) == [bytes(50)]
        counts.append(agent.bytes_sent - before)
    assert counts == [2 + 2 + len(DRAFT) + 1 + 50, 2 + 2 + len(DRAFT) + 4 + 50, 8 + 50]


def test_more_topics_than_aliases_all_arrive(connect):
    operator, agent = connect("operator-1"), connect("agent-1")
    inbox = listen(operator, TOPICS.everything())
    assert operator.wait_connected(DEADLINE_S)
    topics = [TOPICS.draft("agent-1", f"w{number}") for number in range(25)] * 3
    for topic in topics:
        agent.publish(topic, topic.encode(), alias=True)
    received = [inbox.get(DEADLINE_S) for _ in topics]
    assert [(m.topic, m.payload.decode()) for m in received if m] == [(t, t) for t in topics]


def test_an_alias_with_qos_1_is_refused():
    connection = Connection(BrokerAddress("127.0.0.1", 1883))
    with pytest.raises(ValueError, match="QoS 0 only"):
        connection.publish(DRAFT, b"x", qos=1, alias=True)


def test_killing_the_broker_under_a_stream_of_aliases_never_makes_a_protocol_error(private_broker, connect):
    broker = private_broker()
    inbox = listen(connect("worker-1", at=broker, backoff=quick()), TOPICS.drafts_for("worker-1"))
    agent = connect("agent-1", at=broker, backoff=quick())
    ended = threading.Event()

    def stream():
        while not ended.is_set():
            with contextlib.suppress(Disconnected):
                agent.publish(DRAFT, b"x" * 40, alias=True)

    streamer = threading.Thread(target=stream)
    streamer.start()
    try:
        for _ in range(8):
            broker.kill()
            wait_lost(agent)
            broker.restart()
            assert agent.wait_connected(DEADLINE_S)
            inbox.drain()
            assert payloads(inbox, 3) == [b"x" * 40] * 3
    finally:
        ended.set()
        streamer.join()
    assert "rotocol error" not in broker.log
    assert broker.log.count("as agent-1 (") == 1 + 8  # one connection for each life of the broker


# ---------------------------------------------------------------------------------------------- sizes


def test_an_oversized_payload_is_refused_before_it_reaches_the_network(connect):
    agent = connect("agent-1", max_packet_bytes=1000)
    sent = agent.bytes_sent
    for qos in (0, 1):
        with pytest.raises(PayloadTooLarge) as refused:
            agent.publish(OPEN, bytes(1000), qos=qos)
        assert refused.value.topic == OPEN
        assert refused.value.size_bytes == 1000
        assert 900 < refused.value.max_bytes < 1000
    assert agent.bytes_sent == sent
    assert agent.connected


def test_the_brokers_own_bound_holds_where_it_is_the_tighter(connect):
    inbox = listen(connect("worker-1", max_packet_bytes=10_000_000), TOPICS.opens_for("worker-1"), qos=1)
    agent = connect("agent-1", max_packet_bytes=10_000_000)
    with pytest.raises(PayloadTooLarge) as refused:
        agent.publish(OPEN, bytes(1_000_000), qos=1)
    largest = bytes(refused.value.max_bytes)
    agent.publish(OPEN, largest, qos=1)
    assert payloads(inbox, 1) == [largest]
    with pytest.raises(PayloadTooLarge):
        agent.publish(OPEN, largest + b"x", qos=1)
    assert agent.connected


def test_a_retained_message_too_large_for_us_stays_at_the_broker(private_broker, connect):
    broker = private_broker()
    agent = connect("agent-1", at=broker)
    agent.publish(STATUS, bytes(50_000), qos=1, retain=True)
    agent.publish(TOPICS.agent_metrics("agent-1"), b"after it", qos=1, retain=True)
    small = connect("operator-1", at=broker, max_packet_bytes=10_000)
    inbox = listen(small, TOPICS.all_agent_status(), TOPICS.all_agent_metrics(), qos=1)
    assert payloads(inbox, 1) == [b"after it"]
    assert small.connected


# --------------------------------------------------------------------------------------- clear errors


def test_a_wrong_password_gives_one_clear_line_however_often_it_is_tried(broker, connect, caplog):
    with caplog.at_level(logging.WARNING):
        agent = connect("agent-1", password="wrong", wait=False, backoff=quick())
        tries = broker.log.count("not authorised")
        wait_for(lambda: broker.log.count("not authorised") >= tries + 4)
    line = (
        f"broker 127.0.0.1:{broker.port} refused user 'agent-1': not authorized; check username and password"
    )
    assert agent.last_error == line
    assert [r.getMessage() for r in caplog.records] == [line]
    assert not agent.connected


def test_nobody_gets_in_without_a_name(broker):
    connection = Connection(BrokerAddress(broker.host, broker.port), backoff=quick())
    connection.start()
    assert "refused a client without a user name: not authorized" in wait_error(connection)
    connection.stop()


def test_a_port_where_nothing_listens_is_named():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    connection = Connection(BrokerAddress("127.0.0.1", port), backoff=quick())
    connection.start()
    assert wait_error(connection).startswith(f"nothing listens at broker 127.0.0.1:{port}")
    connection.stop()


def test_a_host_that_does_not_exist_is_named(monkeypatch):
    def unknown(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    connection = Connection(BrokerAddress("broker.invalid", 1883), backoff=quick())
    connection.start()
    assert wait_error(connection).startswith("broker host 'broker.invalid' is unknown")
    connection.stop()


# ------------------------------------------------------------------------------------- bytes, counted


def test_the_byte_counts_are_those_of_a_proxy_over_reconnects_and_after_the_end(broker, connect):
    worker = connect("worker-1")
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", port=proxy.port, backoff=quick())
        verdicts = listen(agent, TOPICS.verdict("agent-1"))
        for _ in range(3):
            assert agent.wait_connected(DEADLINE_S)
            for size in (1, 100, 20_000):
                agent.publish(DRAFT, bytes(size), alias=True)
                worker.publish(TOPICS.verdict("agent-1"), bytes(size * 3))
            assert [len(p) for p in payloads(verdicts, 3)] == [3, 300, 60_000]
            wait_for(lambda: agent.bytes_sent == proxy.up.num_bytes)
            assert agent.bytes_received == proxy.down.num_bytes
            proxy.refuse()  # else the agent could be back before anyone has seen that it was gone
            proxy.cut()
            wait_lost(agent)
            proxy.accept()
        assert agent.wait_connected(DEADLINE_S)
        agent.stop()
        wait_for(lambda: proxy.num_connections == 0)
        assert (agent.bytes_sent, agent.bytes_received) == (proxy.up.num_bytes, proxy.down.num_bytes)
        assert agent.bytes_sent > 3 * 20_000


def test_the_byte_counts_are_right_where_the_broker_ends_the_connection(private_broker, connect):
    broker = private_broker()
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", at=broker, port=proxy.port)
        proxy.refuse()
        broker.kill()
        wait_lost(agent)
        assert (agent.bytes_sent, agent.bytes_received) == (proxy.up.num_bytes, proxy.down.num_bytes)


def test_where_the_system_cannot_count_bytes_none_is_said(connect, monkeypatch):
    monkeypatch.delattr(socket, "TCP_INFO")
    agent = connect("agent-1")
    assert agent.bytes_sent is None
    assert agent.bytes_received is None


# ------------------------------------------------------------------------------------ hostile brokers

_CONNACK = bytes.fromhex("2003000000")
_HOSTILE = {
    "a_topic_that_is_not_utf8": bytes.fromhex("3006 0002 fffe 00 41"),
    "a_topic_nobody_asked_for": bytes.fromhex("3005 0001 7a 00 41"),
    "an_empty_topic_without_an_alias": bytes.fromhex("3004 0000 00 41"),
    "a_topic_longer_than_its_packet": bytes.fromhex("3004 ffff 00 41"),
    "properties_longer_than_their_packet": bytes.fromhex("3006 0001 7a ff7f 41"),
    "a_packet_without_content": bytes.fromhex("3000"),
    "a_length_that_never_ends": bytes.fromhex("30ffffffffff"),
    "a_packet_type_that_does_not_exist": bytes.fromhex("0000"),
    "an_acknowledgement_of_nothing": bytes.fromhex("40021234"),
    "a_subscription_answer_to_nothing": bytes.fromhex("9004 1234 00 87"),
    "a_disconnect_with_an_unknown_reason": bytes.fromhex("e001ff"),
    "a_second_connack": _CONNACK,
    "noise": bytes(range(255, 0, -1)),
}


@pytest.mark.parametrize("packet", _HOSTILE.values(), ids=_HOSTILE.keys())
def test_whatever_a_broker_sends_the_network_thread_lives_on(packet):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)
        connection = Connection(BrokerAddress("127.0.0.1", server.getsockname()[1]), backoff=quick())
        connection.start()
        for _ in range(2):
            link, _address = server.accept()
            with link:
                link.settimeout(DEADLINE_S)
                link.recv(4096)
                link.sendall(_CONNACK + packet)
                wait_for(lambda: connection.last_error or connection.connected)
        # It has come back once already, and does so again, to a broker that behaves.
        link, _address = server.accept()
        with link:
            link.settimeout(DEADLINE_S)
            link.recv(4096)
            link.sendall(_CONNACK)
            assert connection.wait_connected(DEADLINE_S)
            connection.stop()
