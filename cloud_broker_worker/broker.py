"""A Mosquitto that lets nobody do more than the design says. In: users and their roles. Out: its three files.

The texts are pure; `write_broker` alone touches the disk. Who may do what comes from `schemas.topics`.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ConfigurationError
from schemas.topics import DEFAULT_ROOT, TOPIC_RULES, Role, Topics, check_name

logger = logging.getLogger(__name__)

# What the connections of both ends announce as well (runtime.mqtt): four times the longest session opening.
MAX_PACKET_BYTES = 262_144
# Debian keeps servers out of an ordinary user's PATH; the others are where builds from source put them.
_MORE_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/sbin")


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


def generate_password() -> str:
    """A password that nobody guesses: 192 random bits as 32 letters, digits, '-' and '_'."""
    return secrets.token_urlsafe(24)


def write_broker(plan: BrokerPlan) -> Path:
    """Write a broker's files, readable by its account alone, and return its configuration file.

    Mosquitto started as root drops to the account `mosquitto` before it reads the access list and the
    passwords. So when root writes the files, they are handed to that account: better than a broker that
    stays root. Folders above `plan.folder` must let the account through.

    Raises ConfigurationError where `mosquitto_passwd` is missing or the folder cannot be written.
    """
    assert all(user.password is not None for user in plan.users), "certificates: see provision"
    tool = find_program("mosquitto_passwd")
    try:
        if not plan.folder.exists():
            plan.folder.mkdir(parents=True, mode=0o700)
            hand_over(plan.folder)  # never a folder that was there already, such as /etc
        for path, text in (
            (plan.config_file, config_text(plan)),
            (plan.acl_file, acl_text(plan)),
            (plan.password_file, "".join(f"{user.name}:{user.password}\n" for user in plan.users)),
        ):
            _write_private(path, text)
        if plan.users:  # mosquitto_passwd 2.0 fails on an empty file
            _hash_passwords(tool, plan.password_file)
        hand_over(plan.config_file, plan.acl_file, plan.password_file)
        if plan.persistent:
            plan.data_folder.mkdir(exist_ok=True, mode=0o700)
            hand_over(plan.data_folder)
    except OSError as error:
        raise ConfigurationError(f"cannot set up a broker in {plan.folder}: {error}") from error
    if not _is_loopback(plan.bind_address):
        logger.warning("broker on %s: passwords cross the network in the clear", plan.bind_address)
    return plan.config_file


def config_text(plan: BrokerPlan) -> str:
    """The text of mosquitto.conf."""
    return "\n".join([*_general_lines(plan), *_listener_lines(plan), ""])


def acl_text(plan: BrokerPlan) -> str:
    """The text of the access list: each user's topics by name, none for anyone else.

    No `pattern` lines: they hold for every user whatever the role, so an agent named like a worker could
    speak as that worker.
    """
    topics = Topics(plan.root)
    blocks = [
        "\n".join([f"user {user.name}", *(f"topic {line}" for line in _grants(topics, user))])
        for user in plan.users
    ]
    return "\n\n".join(["# Generated from schemas/topics.py; changes here are overwritten.", *blocks]) + "\n"


def find_program(name: str) -> str:
    """The path of one of Mosquitto's programs. Raises ConfigurationError where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_MORE_FOLDERS))
    if found is None:
        raise ConfigurationError(f"{name} is not installed; install Mosquitto 2 (apt install mosquitto)")
    return found


def broker_account() -> pwd.struct_passwd | None:
    """The account that Mosquitto takes when root starts it; None where we are not root and it stays ours."""
    if os.geteuid() != 0:
        return None
    for name in ("mosquitto", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigurationError("root needs an account 'mosquitto' for the broker; create it, or avoid root")


def hand_over(*paths: Path) -> None:
    """Give files or folders that root has made to the broker's account; do nothing where we are not root."""
    account = broker_account()
    if account is not None:
        for path in paths:
            os.chown(path, account.pw_uid, account.pw_gid)


def _general_lines(plan: BrokerPlan) -> list[str]:
    return [
        "# One set of rules for all listeners: with `true`, one without its own rules would be open to all.",
        "per_listener_settings false",
        "allow_anonymous false",
        *([f"password_file {plan.password_file.absolute()}"] if plan.needs_passwords else []),
        f"acl_file {plan.acl_file.absolute()}",
        "",
        "# Off by default; replies then wait 40 ms for an acknowledgement.",
        "set_tcp_nodelay true",
        "",
        "# Of the whole packet; told to MQTT 5 clients, so that they can check before they send.",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "max_inflight_messages 64",
        "# For each client; QoS 0 counts too once its socket is full. What is beyond is dropped.",
        "max_queued_messages 1000",
        "max_queued_bytes 4194304",
        "# Nobody here keeps a session while away; one that is left behind must not grow for ever.",
        "persistent_client_expiration 1h",
        "",
        *_persistence_lines(plan),
        *([f"pid_file {plan.pid_file.absolute()}"] if plan.tls is not None else []),
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "",
    ]


def _persistence_lines(plan: BrokerPlan) -> list[str]:
    if not plan.persistent:
        return ["persistence false"]
    return ["persistence true", f"persistence_location {plan.data_folder.absolute()}/"]


def _listener_lines(plan: BrokerPlan) -> list[str]:
    """Where the broker listens, and whether in the clear or encrypted.

    A listener's own options must come after its `listener` line: before it, Mosquitto 2.0 applies them to a
    default listener, which that opens on port 1883 of every interface, without a word.
    """
    return [
        f"listener {plan.port} {plan.bind_address}",
        "# Otherwise a user could take over the connection of another by using its client id.",
        "use_username_as_clientid true",
        *([] if plan.tls is None else _tls_lines(plan.tls)),
    ]


def _tls_lines(tls: BrokerTls) -> list[str]:
    lines = [
        "tls_version tlsv1.2",  # this and newer
        f"cafile {tls.authority_file.absolute()}",
        f"certfile {tls.certificate_file.absolute()}",
        f"keyfile {tls.key_file.absolute()}",
    ]
    if not tls.members_show_certificates:
        return lines
    return [
        *lines,
        f"crlfile {tls.revocation_file.absolute()}",
        "require_certificate true",
        "# The user name is the certificate's common name, whatever the client says.",
        "use_identity_as_username true",
    ]


def _grants(topics: Topics, user: BrokerUser) -> list[str]:
    """The access list's lines for one user, without the word 'topic'."""
    if user.role is Role.OPERATOR:
        return [f"read {topics.everything()}"]
    lines = []
    for rule in TOPIC_RULES:
        may_write, may_read = user.role in rule.writers, user.role in rule.readers
        if may_write or may_read:
            access = "readwrite" if may_write and may_read else "write" if may_write else "read"
            lines.append(f"{access} {topics.filter_for(rule, user.role, user.name)}")
    return lines


def _write_private(path: Path, text: str) -> None:
    """Write so that at no moment anyone else can read: passwords are in the clear until they are hashed."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="utf-8")


def hash_password(user: BrokerUser) -> str:
    """What Mosquitto's password file says after the name. Raises ConfigurationError without its tool."""
    tool = find_program("mosquitto_passwd")
    with tempfile.TemporaryDirectory(prefix="hunch-") as folder:  # 0700: nobody else can read it
        file = Path(folder, "password")
        _write_private(file, f"{user.name}:{user.password}\n")
        _hash_passwords(tool, file)
        return file.read_text(encoding="utf-8").strip().partition(":")[2]


def _hash_passwords(tool: str, password_file: Path) -> None:
    done = subprocess.run([tool, "-U", str(password_file)], capture_output=True, text=True, check=False)
    if done.returncode:
        password_file.unlink(missing_ok=True)
        raise ConfigurationError(f"mosquitto_passwd could not hash the passwords: {done.stderr.strip()}")
    password_file.chmod(0o600)  # it may have been written anew


def _is_loopback(bind_address: str) -> bool:
    try:
        return ipaddress.ip_address(bind_address).is_loopback
    except ValueError:
        return bind_address == "localhost"
