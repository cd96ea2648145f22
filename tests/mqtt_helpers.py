"""Small words that tests of the network are written in. Nothing here sleeps and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.backoff import Backoff
from runtime.mqtt import Connection, Inbox

# Only ever reached by a test that fails.
DEADLINE_S = 20.0


def listen(connection: Connection, *filters: str, qos: int = 0, max_queued: int = 256) -> Inbox:
    """An inbox that the broker has confirmed, so that nothing published from now on is missed."""
    inbox = connection.subscribe([(each, qos) for each in filters], max_queued=max_queued)
    assert connection.wait_connected(DEADLINE_S), connection.last_error
    return inbox


def payloads(inbox: Inbox, count: int) -> list[bytes]:
    """The payloads of the next `count` messages."""
    received: list[bytes] = []
    while len(received) < count:
        message = inbox.get(DEADLINE_S)
        assert message is not None, f"only {received} came in"
        received.append(message.payload)
    return received


def wait_for(condition: Callable[[], object]) -> None:
    """Poll, for what gives no event; never longer than the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def wait_lost(connection: Connection) -> None:
    """Wait until the connection has noticed that it is lost."""
    wait_for(lambda: not connection.connected)


def wait_error(connection: Connection) -> str:
    """Wait until there is an error, and return it."""
    wait_for(lambda: connection.last_error is not None)
    return connection.last_error or "it is connected again"


def quick() -> Backoff:
    """A backoff that does not make a test wait."""
    return Backoff(base_s=0.01, max_s=0.05)
