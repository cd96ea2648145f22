"""A broker's folder: the only place that is written to. In: a roster, an authority. Out: files, whole or not.

roster.json     who belongs to the broker; all of mosquitto/ but data is made from it
authority/      certificate and key of the authority: whoever has the key can let anyone in
credentials/    the files to carry to the members; each is of no use here once it is carried
mosquitto/      what `mosquitto -c` reads, owned by the broker's account where root wrote it
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cloud_broker_worker.broker import (
    BrokerPlan,
    BrokerTls,
    BrokerUser,
    acl_text,
    broker_account,
    config_text,
    hand_over,
)
from cloud_broker_worker.provision.authority import Authority
from cloud_broker_worker.provision.roster import Proof, Roster
from runtime.credentials import Credentials
from schemas.errors import ConfigurationError


@dataclass(frozen=True)
class BrokerFolder:
    """The files of one broker. Every method raises ConfigurationError where the disk refuses."""

    path: Path

    @property
    def exists(self) -> bool:
        """Whether a broker was set up here."""
        return self._roster_file.is_file()

    @property
    def mosquitto(self) -> Path:
        """What the broker itself may read."""
        return self.path / "mosquitto"

    def credentials_file(self, name: str) -> Path:
        """The file to carry to a member."""
        return self.path / "credentials" / f"{name}.toml"

    def plan(self, roster: Roster) -> BrokerPlan:
        """The roster in the words of `cloud_broker_worker.broker`."""
        here = self.mosquitto
        tls = BrokerTls(
            authority_file=here / "authority.pem",
            certificate_file=here / "server.pem",
            key_file=here / "server.key",
            revocation_file=here / "revoked.pem",
            members_show_certificates=roster.proof is Proof.CERTIFICATES,
        )
        users = tuple(BrokerUser(member.name, member.role, None) for member in roster.active)
        address, root = roster.bind_address, roster.topic_root
        return BrokerPlan(here, roster.port, users, address, root, persistent=True, tls=tls)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands out of this folder meanwhile; two at once would forget a member."""
        with _explained(self.path):
            if not self.exists:
                raise ConfigurationError(f"{self.path} holds no broker; `broker init` makes one")
            lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def create(self) -> None:
        """Make the folders. Raises ConfigurationError if there is something in the way."""
        with _explained(self.path):
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise ConfigurationError(f"{self.path} exists and is no broker's folder; give another one")
            self.path.mkdir(parents=True, exist_ok=True)
            # The broker's account must get through, but has no business in here.
            self.path.chmod(0o700 if broker_account() is None else 0o711)
            _check_passable(self.path)
            for folder in (self.path / "authority", self.path / "credentials", self.mosquitto):
                folder.mkdir(mode=0o700)
            data_folder = self.mosquitto / "data"
            data_folder.mkdir(mode=0o700)
            hand_over(self.mosquitto, data_folder)

    def load(self) -> Roster:
        """The roster. Raises ConfigurationError where it is unreadable."""
        with _explained(self._roster_file):
            text = self._roster_file.read_text(encoding="utf-8")
        try:
            return Roster.model_validate_json(text)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ConfigurationError(f"{self._roster_file} is damaged: {why}; restore it") from error

    def load_authority(self) -> Authority:
        """The authority. Raises ConfigurationError where it is unreadable."""
        folder = self.path / "authority"
        with _explained(folder):
            texts = [
                (folder / name).read_text(encoding="utf-8") for name in ("authority.pem", "authority.key")
            ]
        try:
            return Authority(*texts)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{folder} is damaged: {error}; restore it") from error

    def save_authority(self, authority: Authority) -> None:
        """Write a new authority's key and certificate."""
        with _explained(self.path):
            write_atomically(self.path / "authority" / "authority.key", authority.key)
            write_atomically(self.path / "authority" / "authority.pem", authority.certificate)

    def save_server(self, certificate: str, key: str) -> None:
        """Write the broker's own certificate, key first: while they differ, the broker keeps the old pair."""
        with _explained(self.mosquitto):
            write_atomically(self.mosquitto / "server.key", key, for_broker=True)
            write_atomically(self.mosquitto / "server.pem", certificate, for_broker=True)

    def save_credentials(self, credentials: Credentials) -> Path:
        """Write the file to carry to a member."""
        file = self.credentials_file(credentials.name)
        with _explained(file):
            write_atomically(file, credentials.to_toml())
        return file

    def save(self, roster: Roster, authority: Authority, *, acl: str | None = None) -> None:
        """Write the roster, and all that the broker reads from it. `acl` replaces the access list it makes."""
        plan = self.plan(roster)
        hashes = [f"{m.name}:{m.password_hash}\n" for m in roster.active if m.password_hash is not None]
        texts = {
            plan.config_file: config_text(plan),
            plan.acl_file: acl_text(plan) if acl is None else acl,
            self.mosquitto / "authority.pem": authority.certificate,
            self.mosquitto / "revoked.pem": authority.revocation_list(roster.revoked_serials),
        }
        if plan.needs_passwords:
            texts[plan.password_file] = "".join(hashes)
        with _explained(self.path):
            # First: what is written after it can be made from it again, but not the other way round.
            write_atomically(self._roster_file, roster.model_dump_json(indent=1) + "\n")
            for path, text in texts.items():
                write_atomically(path, text, for_broker=True)

    @property
    def _roster_file(self) -> Path:
        return self.path / "roster.json"


def write_atomically(path: Path, text: str, *, for_broker: bool = False) -> None:
    """Replace a file so that a reader, or a power cut, meets the old one or the new one. Mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            account = broker_account() if for_broker else None
            if account is not None:  # by handle: the broker's account may swap names in its own folder
                os.fchown(file.fileno(), account.pw_uid, account.pw_gid)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"cannot use {error.filename or path}: {error.strerror}") from error


def _check_passable(path: Path) -> None:
    """As root: Mosquitto changes to its own account, which must get through all folders above."""
    if broker_account() is None:
        return
    for folder in path.absolute().parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise ConfigurationError(
                f"the broker's account cannot pass {folder} on its way to {path.name}; give another folder"
            )
