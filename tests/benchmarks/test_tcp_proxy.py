"""The proxy itself: benchmarks and tests of faults are only as good as it is."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from benchmarks.tcp_proxy import TcpProxy
from tests.benchmarks.conftest import connect, receive
from tests.mqtt_helpers import DEADLINE_S, wait_for


def test_bytes_pass_unchanged_and_are_counted_each_way(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as link:
        sent = bytes(range(256)) * 1000
        threading.Thread(target=link.sendall, args=(sent,)).start()
        assert receive(link, len(sent)) == sent
        assert (proxy.up.num_bytes, proxy.down.num_bytes) == (len(sent), len(sent))


def test_a_delay_is_kept_each_way(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as link:
        proxy.up.delay_s, proxy.down.delay_s = 0.03, 0.05
        start = time.monotonic()
        link.sendall(b"x")
        receive(link, 1)
        assert 0.08 <= time.monotonic() - start < 1.0


def test_a_delay_is_paid_once_however_many_messages_are_under_way(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as link:
        proxy.set_network(delay_s=0.1)
        start = time.monotonic()
        for _ in range(50):
            link.sendall(b"x")
            time.sleep(0.001)
        receive(link, 50)
        assert 0.2 <= time.monotonic() - start < 2.0  # one after the other would take 10 s


def test_a_rate_is_kept_over_many_messages(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as link:
        proxy.up.bytes_per_s = 100_000
        start = time.monotonic()
        threading.Thread(target=link.sendall, args=(bytes(30_000),)).start()
        receive(link, 30_000)
        assert 0.3 <= time.monotonic() - start < 3.0


def test_a_cut_ends_connections_with_a_reset_and_new_ones_work(echo_port):
    with TcpProxy(echo_port) as proxy:
        with connect(proxy.port) as link:
            link.sendall(b"x")
            receive(link, 1)
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                link.recv(1)
        with connect(proxy.port) as link:
            link.sendall(b"y")
            assert receive(link, 1) == b"y"


def test_new_connections_are_refused_and_taken_again_while_old_ones_live(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as old:
        old.sendall(b"x")
        receive(old, 1)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.port)
        old.sendall(b"y")
        assert receive(old, 1) == b"y"
        proxy.accept()
        connect(proxy.port).close()


def test_a_stalled_network_says_nothing_and_loses_nothing(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as link:
        link.sendall(b"x")
        receive(link, 1)
        proxy.stall()
        link.sendall(b"y")
        link.settimeout(0.1)
        with pytest.raises(TimeoutError):
            link.recv(1)
        link.settimeout(DEADLINE_S)
        proxy.resume()
        assert receive(link, 1) == b"y"


def test_an_orderly_end_is_passed_on_after_the_last_byte(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as link:
        proxy.set_network(delay_s=0.05)
        link.sendall(b"last words")
        link.shutdown(socket.SHUT_WR)
        assert receive(link, 10) == b"last words"
        assert link.recv(1) == b""
        wait_for(lambda: proxy.num_connections == 0)


def test_a_target_that_is_not_there_resets_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with (
        TcpProxy(port) as proxy,
        pytest.raises(ConnectionResetError),  # while connecting, or just after
        connect(proxy.port) as link,
    ):
        link.recv(1)
