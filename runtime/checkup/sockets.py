"""The addresses of a host, as the system gives them. In: names. Out: addresses, connected sockets."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

# Family, type, protocol, canonical name, and what connect() takes: one entry of what getaddrinfo returns.
SocketAddress = tuple[Any, Any, int, str, Any]


def connected(address: SocketAddress, timeout_s: float) -> socket.socket:
    """A TCP connection to one address; raises OSError."""
    family, kind, protocol, _, where = address
    link = socket.socket(family, kind, protocol)
    try:
        link.settimeout(timeout_s)
        link.connect(where)
    except OSError:
        link.close()
        raise
    return link


def numeric(address: SocketAddress) -> str:
    """The address in digits."""
    return str(address[4][0])


def is_loopback(address: SocketAddress) -> bool:
    """Whether it never leaves this machine."""
    return ipaddress.ip_address(numeric(address).partition("%")[0]).is_loopback
