"""The one file that lets a member of a fleet in at its broker. In: TOML with PEM blocks inside. Out: settings.

The file is TOML for us and PEM for everyone else: OpenSSL skips what stands outside PEM blocks, so the same
file serves as authority, certificate and key, here and with `mosquitto_pub --cafile F --cert F --key F`.
Nothing is unpacked, so no key is left behind in a temporary file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError

# A certificate or two and a key take 2 kB.
_MAX_BYTES = 65_536
_TEXTS = ("name", "role", "broker", "topic_root", "password", "certificate", "key", "authority")
_REQUIRED = ("name", "role", "broker", "topic_root", "authority")


@dataclass(frozen=True)
class Credentials:
    """Who a member is and where its broker is. Either `certificate` and `key`, or `password`; all PEM text."""

    name: str
    role: str
    broker: str
    topic_root: str
    authority: str
    certificate: str | None = None
    key: str | None = None
    password: str | None = None

    def __repr__(self) -> str:  # neither key nor password may reach a log by way of a traceback
        return f"Credentials(name={self.name!r}, role={self.role!r}, broker={self.broker!r})"

    def to_toml(self) -> str:
        """The text of the file. The certificate comes first: OpenSSL takes the first one for the own one."""
        lines = [
            f"# Lets {self.role} {self.name} in at {self.broker}, and nobody else: keep it secret.",
            *(f'{field} = "{getattr(self, field)}"' for field in ("name", "role", "broker", "topic_root")),
        ]
        if self.password is not None:
            lines.append(f'password = "{self.password}"')
        for field in ("certificate", "key", "authority"):
            pem = getattr(self, field)
            if pem is not None:
                lines.append(f"{field} = '''\n{pem.strip()}\n'''")
        return "\n".join(lines) + "\n"

    def settings(self, file: Path) -> dict[str, Any]:
        """What the file says, in the words of `runtime.settings`."""
        found: dict[str, Any] = {
            "name": self.name,
            "broker": self.broker,
            "username": self.name,
            "topic_root": self.topic_root,
            "ca_file": file,
        }
        if self.password is not None:
            return {**found, "password": self.password}
        return {**found, "cert_file": file, "key_file": file}


def read_credentials(file: Path) -> Credentials:
    """Read and check a file that `broker add-…` made. Raises ConfigurationError that names the fault."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read credentials {file}: {error.strerror}") from error
    try:
        found = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:  # tomllib's and UTF-8's errors are both
        raise ConfigurationError(f"{file} holds no credentials: {error}") from error
    if len(content) > _MAX_BYTES or not _is_complete(found):
        raise ConfigurationError(
            f"{file} holds no credentials; give the file that `cloud-broker-worker broker add-…` made"
        )
    return Credentials(**found)


def _is_complete(found: dict[str, Any]) -> bool:
    """Whether every field is known and text, none is missing, and there is one way to prove who one is."""
    texts = all(field in _TEXTS and isinstance(value, str) for field, value in found.items())
    by_certificate = {"certificate", "key"} <= found.keys()
    return (
        texts and all(field in found for field in _REQUIRED) and by_certificate is not ("password" in found)
    )
