"""Tells a running broker what changed, and makes sure that it heard. In: a plan. Out: signals, connections.

Measured on Mosquitto 2.0.11: SIGHUP makes it read access list, passwords, revocation list and its own
certificate again. A connection that is up already stays up, though its certificate is revoked, and goes on
reading and writing what the access list lets it. So a member is shut out by all three: the revocation list
keeps it from coming back, a connection under its name ends the one it has, the access list ends its rights.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cloud_broker_worker.broker import BrokerPlan
from runtime.credentials import Credentials
from runtime.link import BrokerAddress, tls_context
from runtime.mqtt import Connection
from schemas.errors import LinkError

_DEADLINE_S = 5.0
_POLL_S = 0.05


def reload(plan: BrokerPlan) -> bool:
    """Tell the broker to read its files again. False: it does not run, and will read them when it starts.

    Raises LinkError where it runs and this account may not tell it.
    """
    process = running_process(plan)
    if process is None:
        return False
    try:
        os.kill(process, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise LinkError(
            f"the files are written, but the broker (process {process}) belongs to another account and does "
            f"not know yet; as root, run: kill -HUP {process}"
        ) from error
    return True


def running_process(plan: BrokerPlan) -> int | None:
    """The broker's process; None where its number is stale or was given to another program since."""
    with contextlib.suppress(OSError, ValueError):
        process = int(plan.pid_file.read_text(encoding="ascii"))
        line = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        words = [Path(os.fsdecode(word)) for word in line if word]
        if any(word.name == "mosquitto" for word in words) and any(_names(w, plan) for w in words):
            return process
    return None


def _names(word: Path, plan: BrokerPlan) -> bool:
    """Whether a word of a command line is this broker's configuration, as far as a relative path tells."""
    if word.is_absolute():
        return word == plan.config_file.absolute()
    return word.name == plan.config_file.name


def wait_until_refused(plan: BrokerPlan, revoked: Credentials) -> None:
    """Wait until the broker refuses a certificate that the newest revocation list names.

    Raises LinkError where it still takes it after five seconds, or cannot be reached.
    """
    deadline = time.monotonic() + _DEADLINE_S
    with _as_address(plan, revoked) as address:
        while _is_let_in(address):
            if time.monotonic() > deadline:
                raise LinkError(f"broker {address} still takes revoked certificates; restart it")
            time.sleep(_POLL_S)


def take_over(plan: BrokerPlan, successor: Credentials, *, clear: tuple[str, ...] = ()) -> None:
    """Connect as a member with new credentials, which ends its other connection, and leave again.

    `clear` are retained topics of the member to be emptied, so that it is not shown as being there.
    Raises LinkError where the broker does not let the successor in.
    """
    with _as_address(plan, successor) as address:
        connection = Connection(address)
        connection.start()
        try:
            connection.expect_connected(_DEADLINE_S)
            for topic in clear:
                connection.publish(topic, b"", qos=1, retain=True)
        finally:
            connection.stop()


def _is_let_in(address: BrokerAddress) -> bool:
    """Whether the broker completes a TLS handshake; in TLS 1.2 that includes its judgement of ours."""
    context = tls_context(address)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with socket.create_connection((address.host, address.port), timeout=_DEADLINE_S) as plain:
            context.wrap_socket(plain, server_hostname=address.host).close()
    except ssl.SSLCertVerificationError as error:
        raise LinkError(f"broker {address} is not the one of this folder: {error.verify_message}") from error
    except ssl.SSLError:
        return False
    except OSError as error:
        raise LinkError(f"broker {address} cannot be reached: {error}") from error
    return True


@contextlib.contextmanager
def _as_address(plan: BrokerPlan, credentials: Credentials) -> Iterator[BrokerAddress]:
    """The broker as seen from this machine, with credentials in a file that only lives meanwhile."""
    with tempfile.TemporaryDirectory(prefix="hunch-") as folder:
        file = Path(folder, "credentials.toml")
        file.touch(mode=0o600)
        file.write_text(credentials.to_toml(), encoding="utf-8")
        found = credentials.settings(file)
        yield BrokerAddress(
            host=local_host(plan.bind_address),
            port=plan.port,
            username=credentials.name,
            password=credentials.password,
            client_id=credentials.name,
            ca_file=file,
            cert_file=found.get("cert_file"),
            key_file=found.get("key_file"),
        )


def local_host(bind_address: str) -> str:
    """Where a broker that listens on `bind_address` is reached from its own machine."""
    try:
        address = ipaddress.ip_address(bind_address)
    except ValueError:
        return bind_address
    if not address.is_unspecified:
        return bind_address
    return "127.0.0.1" if address.version == 4 else "::1"
