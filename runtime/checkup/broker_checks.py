"""The way to the broker, step by step: name, port, certificates, login. In: settings. Out: findings.

`BrokerChecks` keeps the connection that was let in, for what is tried over it later. Each step has its own
time limit, so that a dead network costs seconds.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time

from runtime.checkup.certificates import check_brokers_certificate, check_own_certificate
from runtime.checkup.checks import Finding, failed, from_error, in_the_way, passed, warned
from runtime.checkup.sockets import SocketAddress, connected, is_loopback, numeric
from runtime.link import BrokerAddress, describe_contest, describe_failure, describe_loss
from runtime.mqtt import Connection
from runtime.one_at_a_time import is_claimed
from runtime.settings import BrokerSettings
from schemas.errors import LinkError

_RESOLVE_S = 3.0
# For all addresses of a host together; a board that needs longer for one cannot work anyway.
_CONNECT_S = 4.0
_LOGIN_S = 6.0
_POLL_S = 0.02
# Another process of the same name, on another machine, is back within 0.2 s and ends our connection.
_SETTLED_S = 0.5


class BrokerChecks:
    """The checks of one member's way to its broker."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.connection: Connection | None = None
        self._address: BrokerAddress | None = None
        # How long the nearest address takes to connect, once it is known.
        self.connect_ms: float | None = None
        self._reached: list[SocketAddress] = []
        # Topics of nobody's: they start with what made them, should anyone see them.
        self.nobody = f"doctor-{secrets.token_hex(8)}"

    def close(self) -> None:
        """End the connection; there was neither birth nor will, so nobody is told."""
        if self.connection is not None:
            self.connection.stop()
            self.connection = None

    @property
    def address(self) -> BrokerAddress:
        """Where the broker is; raises ConfigurationError for what cannot be."""
        if self._address is None:
            self._address = self.settings.broker_address()
        return self._address

    @property
    def link(self) -> Connection:
        """The connection, for checks that need the login."""
        assert self.connection is not None
        return self.connection

    def check_alone(self) -> Finding:
        """Whether the service itself runs here: a second connection of its name would end its own."""
        if is_claimed(self.address):
            return in_the_way(
                f"{self.settings.name} runs on this machine now; what would disturb it is left out",
                "stop it for the rest of this check-up",
            )
        return passed(f"no other process of this machine connects as {self.settings.name}")

    def check_address(self) -> Finding:
        """Whether the host's name leads anywhere."""
        address = self.address
        found: list[SocketAddress] = []
        error: OSError | None = TimeoutError()

        def resolve() -> None:
            nonlocal error
            try:
                found.extend(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
                error = None
            except OSError as raised:
                error = raised

        # In a thread of its own: nothing else bounds how long the system asks its name servers.
        thread = threading.Thread(target=resolve, daemon=True)
        thread.start()
        thread.join(_RESOLVE_S)
        if error is not None:
            if isinstance(error, TimeoutError):
                return failed(
                    f"nobody says within {_RESOLVE_S:g} s where {address.host} is", "check the name servers"
                )
            return _from_line(describe_failure(address, error))
        self._reached = found
        return passed(f"{address.host} is {', '.join(numeric(each) for each in found)}")

    def check_port(self) -> Finding:
        """Whether something listens there, at each of the host's addresses."""
        good, bad = [], []
        deadline_s = time.monotonic() + _CONNECT_S
        for each in self._reached:
            left_s = max(0.1, deadline_s - time.monotonic())
            started_s = time.monotonic()
            try:
                connected(each, left_s).close()
            except OSError as error:
                bad.append((each, error))
            else:
                good.append((each, time.monotonic() - started_s))
        if not good:
            return _from_line(describe_failure(self.address, bad[-1][1]))
        self._reached = [each for each, _ in good]
        took_ms = {numeric(each): took_s * 1000 for each, took_s in good}
        found = ", ".join(f"{name} answers in {ms:.1f} ms" for name, ms in took_ms.items())
        self.connect_ms = min(took_ms.values())
        figures = {"connect_ms": round(self.connect_ms, 3)}
        if bad:
            silent = ", ".join(f"{numeric(each)} ({error.strerror or error})" for each, error in bad)
            return warned(f"{found}, but not {silent}", "remove that address from the name server", **figures)
        return passed(f"port {self.address.port}: {found}", **figures)

    def check_certificate(self) -> Finding:
        """Whether the own certificate is good, and its key the right one."""
        return check_own_certificate(self.address, self.settings.name)

    def check_tls(self) -> Finding:
        """Whether the broker proves who it is, and whether TLS is used where it must be."""
        if self.address.uses_tls:
            return check_brokers_certificate(self.address, self._reached[0])
        if all(is_loopback(each) for each in self._reached):
            return passed("not used; the broker is on this machine")
        return warned(
            "not used: the network can read and forge all that is said, the password included",
            "set up a broker with TLS: cloud-broker-worker broker init",
        )

    def check_login(self) -> Finding:
        """Whether the broker lets this member in, and it stays in."""
        self.connection = Connection(self.address)
        self.connection.start()
        refusal = self._wait_let_in(self.connection)
        if refusal is not None:
            self.close()  # it would go on trying, and end the connection of whoever else has this name
            return refusal
        return passed(f"the broker lets {self.address.asker} in as {self.settings.name}")

    def _wait_let_in(self, connection: Connection) -> Finding | None:
        contests = {describe_loss(self.address, was_connected=True), describe_contest(self.address)}
        deadline_s = time.monotonic() + _LOGIN_S
        while not connection.wait_connected(_POLL_S):
            if connection.last_error in contests:
                return self._contest()
            if connection.last_error is not None:
                return _from_line(connection.last_error)
            if time.monotonic() > deadline_s:
                return failed(
                    f"broker {self.address} takes the connection and then says nothing",
                    "check that the port is that of an MQTT 5 broker",
                )
        settled_s = time.monotonic() + _SETTLED_S
        while time.monotonic() < settled_s:
            if not connection.connected:
                return self._contest()
            time.sleep(_POLL_S)
        return None

    def _contest(self) -> Finding:
        return failed(
            f"the broker lets {self.address.asker} in, and the connection ends at once: somebody else connects "
            f"as {self.settings.name}",
            "give each process its own name; the broker ends the older connection of two",
        )


def _from_line(line: str) -> Finding:
    """A failure from one of the lines that the connection says."""
    return from_error(LinkError(line))
