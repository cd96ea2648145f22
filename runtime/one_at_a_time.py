"""One process for each name at a broker. In: who connects where. Out: a claim that ends with the process.

A broker ends the older of two connections of one name. So a service claims its name on this machine: a second
one is told so at once, and the doctor leaves the connection of the first one alone. The claim is a Unix socket in
Linux' abstract namespace: it needs no folder, leaves no file behind, and the kernel drops it with the process.
It holds within one network namespace: a container with a network of its own is another machine.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.link import BrokerAddress
from schemas.errors import ConfigurationError


@contextmanager
def claim_name(address: BrokerAddress) -> Iterator[None]:
    """Hold the name as long as the context lasts. Raises ConfigurationError where another process holds it."""
    with _socket() as claim:
        try:
            claim.bind(_claim_name(address))
        except OSError as error:
            raise ConfigurationError(
                f"{address.client_id} already runs on this machine, and the broker {address} would end its "
                "connection for a second one; stop it first, or give each its own name"
            ) from error
        yield


def is_claimed(address: BrokerAddress) -> bool:
    """Whether a process on this machine holds the name. Looks without taking it."""
    with _socket() as visitor:
        try:
            visitor.connect(_claim_name(address))
        except OSError:
            return False
        return True


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _claim_name(address: BrokerAddress) -> bytes:
    """The name of the socket. Hashed, since there is room for 107 bytes and a host name alone may have 253."""
    who = f"{address.client_id}\0{address}"
    return b"\0hunch-" + hashlib.blake2b(who.encode(), digest_size=16).hexdigest().encode()
