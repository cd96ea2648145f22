"""What a broker is to be: its users, its files, its listener. Plain values, checked as they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError
from schemas.topics import DEFAULT_ROOT, Role, check_name


@dataclass(frozen=True)
class BrokerUser:
    """Someone who may log in; `name` is user name, client id and the name in the topics, all in one.

    `password` is None for those who show a certificate.
    """

    name: str
    role: Role
    password: str | None

    def __post_init__(self) -> None:
        check_name(self.name)
        # mosquitto_passwd 2.0 reads "name:password" lines and silently ends the password at a second ':'.
        if self.password is not None and (not self.password or any(c in ":\r\n\0" for c in self.password)):
            raise ConfigurationError(
                f"the password of {self.name!r} is empty or holds ':' or a line break; generate one instead"
            )

    def __repr__(self) -> str:  # a password must not reach a log by way of a traceback
        return f"BrokerUser(name={self.name!r}, role={self.role})"


@dataclass(frozen=True)
class BrokerTls:
    """A broker's PEM files. `members_show_certificates`: they are who their certificate says, else they need
    a password, which TLS then keeps from other ears.
    """

    authority_file: Path
    certificate_file: Path
    key_file: Path
    revocation_file: Path
    members_show_certificates: bool


@dataclass(frozen=True)
class BrokerPlan:
    """A broker to be set up in `folder`. `persistent` keeps retained messages over a restart."""

    folder: Path
    port: int
    users: tuple[BrokerUser, ...]
    bind_address: str = "127.0.0.1"
    root: str = DEFAULT_ROOT
    persistent: bool = False
    tls: BrokerTls | None = None

    def __post_init__(self) -> None:
        names = [user.name for user in self.users]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"broker user {twice[0]!r} is given twice; give each its own name")

    @property
    def config_file(self) -> Path:
        """What `mosquitto -c` is given."""
        return self.folder / "mosquitto.conf"

    @property
    def acl_file(self) -> Path:
        """Who may do what."""
        return self.folder / "acl"

    @property
    def password_file(self) -> Path:
        """Names and hashed passwords."""
        return self.folder / "passwords"

    @property
    def pid_file(self) -> Path:
        """Where a broker that is told of changes while it runs writes the number of its process."""
        return self.folder / "mosquitto.pid"

    @property
    def needs_passwords(self) -> bool:
        """Whether users log in with a password."""
        return self.tls is None or not self.tls.members_show_certificates

    @property
    def data_folder(self) -> Path:
        """Where a persistent broker keeps what it must not forget; the only place it writes to."""
        return self.folder / "data"
