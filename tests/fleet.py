"""A broker set up as an operator would, with TLS, and running. In: names and roles. Out: addresses."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cloud_broker_worker.private_broker import _free_port, _spawn
from cloud_broker_worker.provision import actions
from cloud_broker_worker.provision.folder import BrokerFolder
from cloud_broker_worker.provision.roster import Proof
from runtime.credentials import read_credentials
from runtime.mqtt import BrokerAddress, Connection
from schemas.topics import DEFAULT_ROOT, Role
from tests.mqtt_helpers import DEADLINE_S, quick, wait_for

DAYS = 30


class Fleet:
    """A broker's folder, its members' credentials, and its Mosquitto as long as the context lasts."""

    def __init__(self, members: Mapping[str, Role], proof: Proof = Proof.CERTIFICATES) -> None:
        self.host, self.port = "127.0.0.1", _free_port("127.0.0.1")
        # Not pytest's folder: where root runs the tests, Mosquitto's own account must get through.
        self.top = Path(tempfile.mkdtemp(prefix="hunch-fleet-"))
        self.top.chmod(0o755)
        self.folder = BrokerFolder(self.top / "broker")
        hosts, root = ("localhost",), DEFAULT_ROOT
        self.wanted = actions.NewBroker(hosts, self.port, self.host, root, proof, DAYS)
        self._process: subprocess.Popen[bytes] | None = None
        self._members = members

    def __enter__(self) -> Self:
        actions.init(self.folder, self.wanted)
        self.files = {name: self.add(name, role) for name, role in self._members.items()}
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
        shutil.rmtree(self.top)

    def add(self, name: str, role: Role) -> Path:
        """Let someone in; returns the file with their credentials, as carried to another machine."""
        return self.carried(actions.add(self.folder, name, role, DAYS))

    def carried(self, file: Path) -> Path:
        """A copy of a file of credentials that later commands do not overwrite."""
        copy = self.top / f"{len(list(self.top.iterdir()))}-{file.name}"
        shutil.move(file, copy)
        return copy

    def start(self) -> None:
        with (self.top / "log").open("ab") as log:
            self._process = _spawn(self.folder.mosquitto / "mosquitto.conf", log)
        wait_for(self._is_open)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE_S)
            self._process = None

    @property
    def log(self) -> str:
        return (self.top / "log").read_text(encoding="utf-8", errors="replace")

    def address(self, name: str, file: Path | None = None, client_id: str | None = None) -> BrokerAddress:
        """How a member with this file connects."""
        used = self.files[name] if file is None else file
        found = read_credentials(used).settings(used)
        return BrokerAddress(
            self.host,
            self.port,
            username=found["username"],
            password=found.get("password"),
            client_id=client_id or name,
            ca_file=found["ca_file"],
            cert_file=found.get("cert_file"),
            key_file=found.get("key_file"),
        )

    def _is_open(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            socket.create_connection((self.host, self.port), timeout=1.0).close()
        except OSError:
            return False
        return True


def is_let_in(address: BrokerAddress) -> bool:
    """Whether the broker accepts a connection; a refusal is waited for, not guessed from silence."""
    connection = Connection(address, backoff=quick())
    connection.start()
    try:
        wait_for(lambda: connection.connected or connection.last_error is not None)
        return connection.wait_connected(0)
    finally:
        connection.stop()
