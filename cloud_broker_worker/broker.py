"""A Mosquitto that lets nobody do more than the design says. In: users and their roles. Out: its three files.

Plain values stand in `broker_plan`, texts in `broker_texts`; this file writes them and knows Mosquitto's programs.
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
from pathlib import Path

from cloud_broker_worker.broker_plan import BrokerPlan, BrokerTls, BrokerUser
from cloud_broker_worker.broker_texts import acl_text, config_text
from schemas.errors import ConfigurationError

__all__ = [
    "BrokerPlan",
    "BrokerTls",
    "BrokerUser",
    "acl_text",
    "broker_account",
    "config_text",
    "find_program",
    "generate_password",
    "hand_over",
    "hash_password",
    "write_broker",
]

logger = logging.getLogger(__name__)

# Debian keeps servers out of an ordinary user's PATH; the others are where builds from source put them.
_MORE_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/sbin")


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
