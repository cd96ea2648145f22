"""The links: a proxy that is told to be one delays and limits as it says."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.paper.links import LINKS, LOOPBACK
from benchmarks.tcp_proxy import TcpProxy
from tests.benchmarks.conftest import connect, receive


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
def test_a_byte_there_and_back_takes_one_round_trip(echo_port, link):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as sock:
        link.apply(proxy)
        assert proxy.up.delay_s == proxy.down.delay_s == link.round_trip_s / 2
        took = []
        for _ in range(5):
            start = time.monotonic()
            sock.sendall(b"x")
            receive(sock, 1)
            took.append(time.monotonic() - start)
        # The quickest of some: a busy machine adds to all others.
        assert link.round_trip_s <= min(took) < 1.5 * link.round_trip_s + 0.01


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
def test_a_tenth_of_a_second_of_the_slower_way_takes_that_long(echo_port, link):
    slower_bits_s = min(link.up_bits_s, link.down_bits_s)
    num_bytes = int(slower_bits_s / 8 / 10)
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as sock:
        link.apply(proxy)
        start = time.monotonic()
        threading.Thread(target=sock.sendall, args=(bytes(num_bytes),)).start()
        receive(sock, num_bytes)
        assert link.round_trip_s + 0.1 <= time.monotonic() - start < link.round_trip_s + 2.0


def test_loopback_undoes_a_link(echo_port):
    with TcpProxy(echo_port) as proxy, connect(proxy.port) as sock:
        LINKS[-1].apply(proxy)
        LOOPBACK.apply(proxy)
        start = time.monotonic()
        sock.sendall(b"x")
        receive(sock, 1)
        assert time.monotonic() - start < LINKS[-1].round_trip_s
