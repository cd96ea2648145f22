"""What tests of the network between two sockets share: a server that sends back what it gets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.mqtt_helpers import DEADLINE_S


def echo(link: socket.socket) -> None:
    with link:
        try:
            while data := link.recv(65_536):
                link.sendall(data)
        except OSError:
            return


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets, until the test is over."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads: list[threading.Thread] = []

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=echo, args=(link,)))
                threads[-1].start()

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(DEADLINE_S)


def connect(port: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def receive(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = link.recv(65_536)
        assert more, "the connection ended too soon"
        data += more
    return data
