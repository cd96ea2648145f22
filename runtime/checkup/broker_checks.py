"""The way to the broker, step by step: name, port, TLS, certificate, login, rights. In: settings. Out: findings.

`BrokerChecks` keeps the connection that was let in, for what is tried over it later. Each step has its own
time limit, so that a dead network costs seconds. Nothing here is retained, and every topic that is written to
is one that nobody has: a name drawn at random.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from runtime.certificate_dates import read_validity
from runtime.checkup.checks import Finding, failed, from_error, in_the_way, passed, warned
from runtime.link import BrokerAddress, describe_failure, describe_loss, tls_context
from runtime.mqtt import DEFAULT_MAX_PACKET_BYTES, Connection
from runtime.one_at_a_time import is_claimed
from runtime.settings import BrokerSettings
from schemas.errors import ConfigurationError, LinkError, PayloadTooLarge

_RESOLVE_S = 3.0
# For all addresses of a host together; a board that needs longer for one cannot work anyway.
_CONNECT_S = 4.0
_HANDSHAKE_S = 4.0
_LOGIN_S = 6.0
_ANSWER_S = 3.0
_POLL_S = 0.02
# Another process of the same name, on another machine, is back within 0.2 s and ends our connection.
_SETTLED_S = 0.5
# Around a payload there is the topic and little else.
_MAX_HEADER_BYTES = 1024
_WARN_DAYS = 30
# OpenSSL's codes for a certificate that is not good yet, or no longer (x509_vfy.h).
_DATE_MENDS = {
    9: "set the clock of this machine; it is behind",
    10: "at the broker: cloud-broker-worker broker rotate-server; or set the clock of this machine",
}
_ROTATE = "cloud-broker-worker broker rotate {name}, and bring the new file here"


class BrokerChecks:
    """The checks of one member's way to its broker."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.connection: Connection | None = None
        self._address: BrokerAddress | None = None
        # How long the nearest address takes to connect, once it is known.
        self.connect_ms: float | None = None
        self._reached: list[Any] = []  # socket addresses, as getaddrinfo gives them
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
        found: list[Any] = []
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
        return passed(f"{address.host} is {', '.join(_numeric(each) for each in found)}")

    def check_port(self) -> Finding:
        """Whether something listens there, at each of the host's addresses."""
        good, bad = [], []
        deadline_s = time.monotonic() + _CONNECT_S
        for each in self._reached:
            left_s = max(0.1, deadline_s - time.monotonic())
            started_s = time.monotonic()
            try:
                _connected(each, left_s).close()
            except OSError as error:
                bad.append((each, error))
            else:
                good.append((each, time.monotonic() - started_s))
        if not good:
            return _from_line(describe_failure(self.address, bad[-1][1]))
        self._reached = [each for each, _ in good]
        took_ms = {_numeric(each): took_s * 1000 for each, took_s in good}
        found = ", ".join(f"{name} answers in {ms:.1f} ms" for name, ms in took_ms.items())
        self.connect_ms = min(took_ms.values())
        figures = {"connect_ms": round(self.connect_ms, 3)}
        if bad:
            silent = ", ".join(f"{_numeric(each)} ({error.strerror or error})" for each, error in bad)
            return warned(f"{found}, but not {silent}", "remove that address from the name server", **figures)
        return passed(f"port {self.address.port}: {found}", **figures)

    def check_tls(self) -> Finding:
        """Whether the broker proves who it is, and for how long it still can."""
        address = self.address
        if not address.uses_tls:
            if all(_is_loopback(each) for each in self._reached):
                return passed("not used; the broker is on this machine")
            return warned(
                "not used: the network can read and forge all that is said, the password included",
                "set up a broker with TLS: cloud-broker-worker broker init",
            )
        try:
            context = tls_context(address)
        except ConfigurationError as error:
            return failed(
                str(error), "give the certificate of the broker's authority (ca_file), as a PEM file"
            )
        try:
            with _connected(self._reached[0], _HANDSHAKE_S) as plain:
                link = context.wrap_socket(plain, server_hostname=address.host)
        except OSError as error:
            finding = _from_line(describe_failure(address, error))
            mend = _DATE_MENDS.get(getattr(error, "verify_code", 0))
            return finding if mend is None else failed(finding.found, mend)
        with link:
            shown, spoken = link.getpeercert() or {}, link.version()
        until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
        found = f"{spoken}, the broker's certificate is good until {until:%Y-%m-%d}"
        figures = {"days_left": _days_left(until)}
        if _days_left(until) < _WARN_DAYS:
            mend = "at the broker: cloud-broker-worker broker rotate-server"
            return warned(f"{found}: {_days_left(until)} days left", mend, **figures)
        return passed(found, **figures)

    def check_certificate(self) -> Finding:
        """Whether the own certificate is good, and its key the right one."""
        file = self.address.cert_file
        if file is None:
            return passed("not used; the login is by user name")
        try:  # to use them; what the authority's file is like shows with the broker's certificate
            tls_context(dataclasses.replace(self.address, ca_file=None))
        except ConfigurationError as error:
            return failed(
                str(error), "give the certificate and the key of one and the same member, as PEM files"
            )
        validity, now = read_validity(file), datetime.now(UTC)
        figures = {"days_left": _days_left(validity.until)}
        rotate = _ROTATE.format(name=self.settings.name)
        if now > validity.until:
            return failed(f"{file} has expired on {validity.until:%Y-%m-%d}", rotate, **figures)
        if now < validity.since:
            found = f"{file} is not good before {validity.since:%Y-%m-%d}, and the clock says {now:%Y-%m-%d}"
            return failed(found, "set the clock", **figures)
        found = f"its key fits, it is good until {validity.until:%Y-%m-%d}"
        if _days_left(validity.until) < _WARN_DAYS:
            return warned(f"{found}: {_days_left(validity.until)} days left", rotate, **figures)
        return passed(found, **figures)

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
        deadline_s = time.monotonic() + _LOGIN_S
        while not connection.wait_connected(_POLL_S):
            if connection.last_error == describe_loss(self.address, was_connected=True):
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

    def check_access(
        self, allowed: dict[str, tuple[str, bytes]], forbidden: dict[str, str], unread: str
    ) -> Finding:
        """Whether the broker takes what this member may write, and nothing else.

        `allowed` is what it may write, with a payload that harms nobody, `forbidden` what it may not, both by a
        word for it; `unread` is a topic among the allowed ones that it may not read.
        """
        overheard = self.link.subscribe([(unread, 0)])
        for word, (topic, payload) in allowed.items():
            reason = self.link.publish_and_ask(topic, payload, _ANSWER_S)
            if reason is not None:
                return failed(
                    f"the broker does not take {word} from {self.settings.name} ({reason})",
                    f"check topic_root ({self.settings.topic_root}) and the role of {self.settings.name} there",
                )
        leaks = [word for word, topic in forbidden.items() if self._is_taken(topic)]
        if overheard.get(0.0) is not None:  # a broker hands on what came before it answers what came after
            leaks.append("and read what is not for it")
        if leaks:
            return failed(
                f"the broker has no access list: {self.settings.name} may {', '.join(leaks)}",
                "cloud-broker-worker broker init makes a broker that has one",
            )
        return passed(f"{self.settings.name} may write {', '.join(allowed)}, and nothing in another's name")

    def check_packet_size(self, topic: str, payload: bytes, what: str) -> Finding:
        """Whether the broker takes the largest message of this member."""
        try:
            self.link.check_size(topic, payload)
        except PayloadTooLarge as error:
            figures = {"needed_bytes": error.size_bytes, "allowed_bytes": error.max_bytes}
            if error.max_bytes > DEFAULT_MAX_PACKET_BYTES - _MAX_HEADER_BYTES:
                return passed(
                    f"{what} may have {error.size_bytes:,} bytes; the answers to prompts that do not compress "
                    f"below {DEFAULT_MAX_PACKET_BYTES:,} will be unverified",
                    **figures,
                )
            return warned(
                f"the broker takes {error.max_bytes:,} bytes, {what} may have {error.size_bytes:,}",
                f"raise max_packet_size at the broker to {DEFAULT_MAX_PACKET_BYTES}, or lower n_ctx",
                **figures,
            )
        return passed(f"the broker takes {what}, up to {len(payload):,} bytes", needed_bytes=len(payload))

    def _is_taken(self, topic: str) -> bool:
        """Whether the broker takes a message that it must refuse; some end the connection instead."""
        try:
            return self.link.publish_and_ask(topic, b"", _ANSWER_S) is None
        except LinkError:
            self.link.wait_connected(_ANSWER_S)
            return False


def round_trip_ms(
    send: Callable[[], None], hear: Callable[[float], object | None], count: int
) -> list[float]:
    """How long each of `count` messages takes to come back; shorter where some do not."""
    took_ms = []
    for _ in range(count):
        started_s = time.monotonic()
        send()
        if hear(_ANSWER_S) is None:
            break
        took_ms.append((time.monotonic() - started_s) * 1000)
    return took_ms


def _connected(each: Any, timeout_s: float) -> socket.socket:
    family, kind, protocol, _, where = each
    link = socket.socket(family, kind, protocol)
    try:
        link.settimeout(timeout_s)
        link.connect(where)
    except OSError:
        link.close()
        raise
    return link


def _from_line(line: str) -> Finding:
    """A failure from one of the lines that the connection says."""
    return from_error(LinkError(line))


def _numeric(each: Any) -> str:
    return str(each[4][0])


def _is_loopback(each: Any) -> bool:
    return ipaddress.ip_address(_numeric(each).partition("%")[0]).is_loopback


def _days_left(until: datetime) -> int:
    return (until - datetime.now(UTC)).days
