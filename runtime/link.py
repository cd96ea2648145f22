"""What the connection to the broker is told and what it says. In: settings, failures. Out: one clear line.

Pure but for `tls_context`, which reads the certificate files.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError

# MQTT 5 reason codes (section 2.4) that a user can do something about, and what.
_MENDS = {
    0x84: "the broker must speak MQTT 5",
    0x85: "use a client id of letters and digits",
    0x86: "check username and password",
    0x87: "check username and password",
    0x88: "the broker is not available; it is asked again later",
    0x89: "the broker is busy; it is asked again later",
    0x8A: "the broker has banned this client",
    0x8B: "the broker is shutting down; it is asked again later",
    0x8D: "the network was too slow for keepalive_s, or the process was stopped",
    0x8E: "another process connects under this name; give each its own",
    0x93: "the broker must allow more messages in flight",
    0x95: "raise max_packet_size at the broker",
    0x97: "raise the quota at the broker",
    0x9F: "the broker limits the rate of connections; it is asked again later",
}


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker is and who asks. TLS is on where `tls` says so or a certificate file is given.

    Raises ConfigurationError for what could never work.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    client_id: str = ""
    keepalive_s: int = 15
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    tls: bool = False

    def __post_init__(self) -> None:
        try:
            self.host.encode("idna")  # what the resolver does first; it raises UnicodeError, not OSError
        except UnicodeError:
            raise ConfigurationError(f"broker host {self.host!r} is not a host name or address") from None
        if not self.host:
            raise ConfigurationError("broker host is empty; give a host name or address")
        if not 0 < self.port < 65_536:
            raise ConfigurationError(f"broker port {self.port} is not in 1 to 65535")
        if not 0 < self.keepalive_s < 65_536:
            raise ConfigurationError(f"keepalive_s {self.keepalive_s} is not in 1 to 65535")
        if self.password is not None and self.username is None:
            raise ConfigurationError("a broker password is given without a username; give both")
        if self.key_file is not None and self.cert_file is None:
            raise ConfigurationError("a client key is given without its certificate; give cert_file too")

    def __repr__(self) -> str:  # a password must not reach a log by way of a traceback
        return f"BrokerAddress({self}, username={self.username!r}, client_id={self.client_id!r})"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or self.ca_file is not None or self.cert_file is not None

    @property
    def asker(self) -> str:
        """Who connects, for messages."""
        return "a client without a user name" if self.username is None else f"user {self.username!r}"


@dataclass(frozen=True)
class Publication:
    """A message to be published by the connection itself: its birth, its will, its farewell."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class _TidySocket(ssl.SSLSocket):
    """Closes itself after a failed handshake; paho 2.2 drops the socket then, and leaves that to chance."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """TLS settings from the address's files. Raises ConfigurationError that names the file at fault."""
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"cannot use {address.ca_file} as CA certificates: {error}") from error
    context.sslsocket_class = _TidySocket
    if address.cert_file is not None:
        try:
            context.load_cert_chain(address.cert_file, address.key_file)
        except OSError as error:
            files = " with ".join(str(f) for f in (address.cert_file, address.key_file) if f is not None)
            raise ConfigurationError(f"cannot use {files} as client certificate: {error}") from error
    return context


def describe_refusal(address: BrokerAddress, code: int, reason: str) -> str:
    """The line for a CONNACK that says no."""
    return _with_mend(f"broker {address} refused {address.asker}: {reason.lower()}", code)


def describe_goodbye(address: BrokerAddress, code: int, reason: str) -> str:
    """The line for a DISCONNECT that the broker sent."""
    return _with_mend(f"broker {address} ended the connection of {address.asker}: {reason.lower()}", code)


def describe_loss(address: BrokerAddress, *, was_connected: bool) -> str:
    """The line for a connection that ended without a word."""
    if was_connected:
        return f"lost the connection to broker {address}"
    told = "with TLS" if address.uses_tls else "without TLS"
    if address.cert_file is not None:  # TLS 1.3: the broker looks at it after our side of the handshake
        told += f", and that certificate {address.cert_file} has neither expired nor been revoked"
    return (
        f"broker {address} closed the connection of {address.asker} before answering; "
        f"check that the port is the broker's and is to be used {told}"
    )


def describe_contest(address: BrokerAddress) -> str:
    """The line for a connection that the broker accepts and ends, again and again."""
    return (
        f"broker {address} accepts {address.asker} but the connection ends within seconds, again and again; "
        "check that no other process connects under this name"
    )


def describe_failure(address: BrokerAddress, error: BaseException | None) -> str:
    """The line for a connection that could not be opened at all."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"broker {address} shows a certificate that is not trusted: "
            f"{error.verify_message}; check ca_file and the host name"
        )
    if isinstance(error, ssl.SSLError):
        why = getattr(error, "reason", None) or error
        return f"TLS with broker {address} failed: {why}; check that the port speaks TLS"
    if isinstance(error, socket.gaierror):
        return (
            f"broker host {address.host!r} is unknown: {error.strerror}; check the host name and the network"
        )
    if isinstance(error, ConnectionResetError) and address.uses_tls:
        return f"broker {address} hung up during the TLS handshake; check that the port speaks TLS"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at broker {address}; check host, port and that the broker runs"
    if isinstance(error, TimeoutError):
        return f"broker {address} did not answer in time; check host, port and firewall"
    return f"cannot reach broker {address}: {error}"


def _with_mend(line: str, code: int) -> str:
    mend = _MENDS.get(code)
    return line if mend is None else f"{line}; {mend}"
