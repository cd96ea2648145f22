"""What tests of the network share: a real Mosquitto, and connections to it that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import hypothesis
import pytest

from cloud_broker_worker.private_broker import PrivateBroker
from runtime.mqtt import BrokerAddress, Connection
from schemas.topics import Role

USERS: Mapping[str, Role] = {
    "agent-1": Role.AGENT,
    "agent-2": Role.AGENT,
    "worker-1": Role.WORKER,
    "worker-2": Role.WORKER,
    "client-1": Role.CLIENT,
    "operator-1": Role.OPERATOR,
    "home-1": Role.HOME_ASSISTANT,
    "home-2": Role.HOME_ASSISTANT,
}

# A busy machine may take long over one example; pytest's own timeout catches what hangs.
hypothesis.settings.register_profile("hunch", deadline=None)
hypothesis.settings.load_profile("hunch")


class Connect(Protocol):
    """Makes a started connection; see `connect`."""

    def __call__(
        self,
        name: str,
        *,
        at: PrivateBroker | None = None,
        port: int | None = None,
        password: str | None = None,
        wait: bool = True,
        **options: Any,
    ) -> Connection: ...


@pytest.fixture(scope="session")
def broker() -> Iterator[PrivateBroker]:
    """One Mosquitto for all tests. A test that retains messages or ends the broker takes `private_broker`."""
    with PrivateBroker(USERS) as running:
        yield running


@pytest.fixture
def private_broker() -> Iterator[Callable[[], PrivateBroker]]:
    """Starts a Mosquitto for this test alone, with the same users; takes 50 ms."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(PrivateBroker(USERS))


@pytest.fixture
def connect(broker: PrivateBroker) -> Iterator[Connect]:
    """`connect("agent-1")` is a started and accepted connection of that user, stopped after the test.

    `at` is another broker, `port` a proxy in front of it; `wait=False` does not wait to be accepted; all
    other options are the connection's own.
    """
    with ExitStack() as stack:

        def start(name, *, at=None, port=None, password=None, wait=True, **options):
            broker_used = broker if at is None else at
            address = BrokerAddress(
                broker_used.host,
                broker_used.port if port is None else port,
                username=name,
                password=broker_used.credentials[name] if password is None else password,
                client_id=name,
            )
            connection = Connection(address, **options)
            connection.start()
            stack.callback(connection.stop)
            if wait:
                assert connection.wait_connected(10.0), connection.last_error
            return connection

        yield start
