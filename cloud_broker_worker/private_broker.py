"""A Mosquitto of one's own, for the demo and the tests. In: users and roles. Out: a port and passwords.

It listens on loopback alone, in a temporary folder, and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from cloud_broker_worker.broker import (
    BrokerPlan,
    BrokerUser,
    broker_account,
    find_program,
    generate_password,
    hand_over,
    write_broker,
)
from schemas.errors import ConfigurationError
from schemas.topics import DEFAULT_ROOT, Role

_START_DEADLINE_S = 10.0
_STOP_DEADLINE_S = 5.0
_POLL_S = 0.02
# Another process may take the port between our asking for a free one and Mosquitto's opening it.
_MAX_PORTS_TRIED = 5
# A complete MQTT 5 CONNECT without a user name; any broker answers it with a CONNACK, ours with a refusal.
_CONNECT = bytes.fromhex("100d 0004 4d515454 05 02 000a 00 0000")
_CONNACK = 0x20


class PrivateBroker:
    """A running Mosquitto, as a context manager. Start it in the main thread: it dies with its thread."""

    def __init__(self, users: Mapping[str, Role], *, root: str = DEFAULT_ROOT) -> None:
        self.credentials = {name: generate_password() for name in users}
        self._users = tuple(BrokerUser(name, role, self.credentials[name]) for name, role in users.items())
        self._root = root
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="hunch-broker-"))
        try:
            hand_over(self._folder)
            self._start_on_a_free_port(self._folder)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def host(self) -> str:
        """Loopback, always."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port it listens on; stays the same over restarts."""
        assert self._port is not None, "enter the context first"
        return self._port

    @property
    def pid(self) -> int:
        """The process, for tests that stop and continue it."""
        assert self._process is not None, "enter the context first"
        return self._process.pid

    @property
    def log(self) -> str:
        """All that Mosquitto has said so far."""
        assert self._folder is not None, "enter the context first"
        return self._log_file(self._folder).read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would; nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Start it again on the same port, ending it first if it runs. Nothing is remembered."""
        assert self._folder is not None, "enter the context first"
        self._stop()
        self._start(self._folder)

    def _start_on_a_free_port(self, folder: Path) -> None:
        for attempt in range(_MAX_PORTS_TRIED):
            self._port = _free_port(self.host)
            write_broker(BrokerPlan(folder, self._port, self._users, self.host, self._root))
            try:
                self._start(folder)
                return
            except ConfigurationError:
                self._stop()
                if attempt == _MAX_PORTS_TRIED - 1 or "in use" not in self.log:
                    raise

    def _start(self, folder: Path) -> None:
        with self._log_file(folder).open("ab") as log:
            self._process = _spawn(folder / "mosquitto.conf", log)
        deadline = time.monotonic() + _START_DEADLINE_S
        while not _answers(self.host, self.port):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended at once" if ended else f"does not answer after {_START_DEADLINE_S:.0f} s"
                raise ConfigurationError(f"mosquitto {what}; it said: {self.log.strip()}")
            time.sleep(_POLL_S)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    @staticmethod
    def _log_file(folder: Path) -> Path:
        return folder / "mosquitto.log"


def _spawn(config_file: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start Mosquitto so that the kernel ends it with us, even where we are killed.

    The kernel forgets a parent-death signal when a process changes its account, as Mosquitto does when root
    starts it. So it is started with that account from the beginning.
    """
    command = [find_program("mosquitto"), "-c", str(config_file)]
    setpriv = shutil.which("setpriv")  # part of util-linux, so of every Linux
    if setpriv is not None:
        command = [setpriv, "--pdeathsig", "KILL", *command]
    account = broker_account()
    as_account: dict[str, Any] = {}
    if account is not None:
        as_account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    # A process group of its own: Ctrl-C is for us, and we end it once our clients have said farewell.
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0, **as_account
    )


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(host: str, port: int) -> bool:
    """Whether an MQTT broker accepts connections there and answers them."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0) as link:
        link.sendall(_CONNECT)
        return link.recv(1) == bytes([_CONNACK])
    return False
