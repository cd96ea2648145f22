"""The connection, against a real Mosquitto: messages, topic aliases, sizes and counted bytes."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time

import pytest

from benchmarks.tcp_proxy import TcpProxy
from runtime.mqtt import BrokerAddress, Connection
from schemas.errors import Disconnected, PayloadTooLarge
from schemas.topics import Topics
from tests.mqtt_helpers import DEADLINE_S, listen, payloads, quick, wait_for, wait_lost

TOPICS = Topics()
DRAFT = TOPICS.draft("agent-1", "worker-1")
STATUS = TOPICS.agent_status("agent-1")
OPEN = TOPICS.open("agent-1", "worker-1")


def test_a_message_comes_in_with_its_topic_its_bytes_and_its_time(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    inbox = listen(worker, TOPICS.drafts_for("worker-1"))
    before = time.monotonic()
    agent.publish(DRAFT, b"\x00\xff draft")
    message = inbox.get(DEADLINE_S)
    assert message is not None
    assert (message.topic, message.payload, message.retained) == (DRAFT, b"\x00\xff draft", False)
    assert before <= message.received_at <= time.monotonic()


def test_one_inbox_can_wait_for_several_topics(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    inbox = listen(worker, TOPICS.drafts_for("worker-1"), TOPICS.opens_for("worker-1"), qos=1)
    agent.publish(OPEN, b"open", qos=1)
    agent.publish(DRAFT, b"draft")
    assert sorted(payloads(inbox, 2)) == [b"draft", b"open"]


def test_each_inbox_gets_only_what_it_asked_for(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    drafts = listen(worker, TOPICS.drafts_for("worker-1"))
    opens = listen(worker, TOPICS.opens_for("worker-1"), qos=1)
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
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            agent.publish(DRAFT, bytes([number]))
        wait_for(lambda: inbox.num_dropped == 16)
    assert [p[0] for p in payloads(inbox, 4)] == [16, 17, 18, 19]
    assert len([r for r in caplog.records if "the oldest are dropped" in r.getMessage()]) == 1


def test_small_messages_are_not_held_back(connect):
    assert connect("agent-1")._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_alias_shrinks_the_header_to_eight_bytes(connect):
    worker, agent = connect("worker-1"), connect("agent-1")
    inbox = listen(worker, TOPICS.drafts_for("worker-1"))
    counts = []
    for alias in (False, True, True):
        before = agent.bytes_sent
        agent.publish(DRAFT, bytes(50), alias=alias)
        assert payloads(inbox, 1) == [bytes(50)]
        counts.append(agent.bytes_sent - before)
    assert counts == [2 + 2 + len(DRAFT) + 1 + 50, 2 + 2 + len(DRAFT) + 4 + 50, 8 + 50]


def test_more_topics_than_aliases_all_arrive(connect):
    operator, agent = connect("operator-1"), connect("agent-1")
    inbox = listen(operator, f"{TOPICS.root}/agents/agent-1/draft/+")
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
