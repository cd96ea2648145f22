"""The connection when things break: birth and will, a broker that dies, a dead link, clear errors."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time

import pytest

from benchmarks.tcp_proxy import TcpProxy
from runtime.mqtt import BrokerAddress, Connection, Publication
from schemas.errors import Disconnected, LinkError
from schemas.topics import Topics
from tests.mqtt_helpers import DEADLINE_S, listen, payloads, quick, wait_error, wait_for, wait_lost

TOPICS = Topics()
DRAFT = TOPICS.draft("agent-1", "worker-1")
STATUS = TOPICS.agent_status("agent-1")
OPEN = TOPICS.open("agent-1", "worker-1")
ONLINE = Publication(STATUS, b"online")
OFFLINE = Publication(STATUS, b"offline")


def test_birth_will_and_farewell_say_where_a_client_is(private_broker, connect):
    broker = private_broker()
    watcher = connect("operator-1", at=broker)
    inbox = listen(watcher, TOPICS.all_agent_status(), TOPICS.all_worker_status(), qos=1)
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
        with pytest.raises(LinkError, match="has not acknowledged"):  # noqa: PT012  some publication will
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


def test_tls_where_none_is_spoken_is_explained_and_leaves_no_socket_behind(broker):
    connection = Connection(BrokerAddress(broker.host, broker.port, tls=True), backoff=quick())
    connection.start()
    assert "check that the port speaks TLS" in wait_error(connection)
    connection.stop()


def test_a_fault_of_ours_in_the_network_thread_is_logged_and_ends_nothing(connect, caplog, monkeypatch):
    agent, worker = connect("agent-1"), connect("worker-1")
    inbox = listen(agent, TOPICS.verdict("agent-1"))
    with monkeypatch.context() as broken:
        broken.setattr(inbox, "put", None)
        worker.publish(TOPICS.verdict("agent-1"), b"falls over")
        wait_for(lambda: "fault in the network thread, in _on_message" in caplog.text)
    worker.publish(TOPICS.verdict("agent-1"), b"comes in")
    assert payloads(inbox, 1) == [b"comes in"]


def test_whatever_an_attempt_to_connect_raises_the_next_one_is_made(broker, monkeypatch):
    create_connection, faults = socket.create_connection, [RuntimeError("deque mutated"), ValueError("odd")]

    def failing_at_first(*arguments, **options):
        if faults:
            raise faults.pop()
        return create_connection(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", failing_at_first)
    address = BrokerAddress(broker.host, broker.port, "agent-1", broker.credentials["agent-1"], "agent-1")
    connection = Connection(address, backoff=quick())
    connection.start()
    assert connection.wait_connected(DEADLINE_S)
    assert not faults
    connection.stop()
