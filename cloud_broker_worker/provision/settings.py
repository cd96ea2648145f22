"""The settings of `cloud-broker-worker broker …`. In: flags, environment (HUNCH_BROKER_…), TOML. Out: values."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from runtime.settings import FileSettings
from schemas.errors import ConfigurationError
from schemas.topics import DEFAULT_ROOT, Role, Topics, check_name

DEFAULT_FILE = Path("/etc/hunch/broker.toml")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_-]+)*", re.ASCII)


class BrokerFolderSettings(FileSettings):
    """Show who is let in. Flags override HUNCH_BROKER_… variables, which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_BROKER_")

    folder: Path = Field(Path("/var/lib/hunch/broker"), description="the broker's files, all of them")


class InitSettings(BrokerFolderSettings):
    """Set up a broker with TLS. Flags override HUNCH_BROKER_… variables, which override the TOML file."""

    host: tuple[str, ...] = Field(
        min_length=1, description="name or address of the broker for its members; more than one: repeat it"
    )
    port: int = Field(8883, ge=1, le=65_535, description="where it listens")
    bind_address: str = Field("0.0.0.0", description="address it listens on")  # noqa: S104  a broker is for others
    passwords: bool = Field(False, description="members log in with passwords instead of certificates")
    topic_root: str = Field(DEFAULT_ROOT, description="first levels of all topics")
    days: int = Field(730, ge=1, le=3650, description="how long the broker's certificate is good")

    @field_validator("host")
    @classmethod
    def _hosts_fit(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _is_address(host) and not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name or address")
        return hosts

    @field_validator("bind_address")
    @classmethod
    def _address_fits(cls, address: str) -> str:
        if not _is_address(address):
            raise ValueError(f"{address!r} is not an address; write 0.0.0.0 for all of IPv4, :: for IPv6")
        return address

    @field_validator("topic_root")
    @classmethod
    def _root_fits(cls, root: str) -> str:
        try:
            return Topics(root).root
        except ConfigurationError as error:
            raise ValueError(str(error)) from error


class MemberSettings(BrokerFolderSettings):
    """Shut a member out. Flags override HUNCH_BROKER_… variables, which override the TOML file."""

    name: CliPositionalArg[str] = Field(description="name in topics; letters, digits, . _ -")

    @field_validator("name")
    @classmethod
    def _name_fits(cls, name: str) -> str:
        try:
            return check_name(name)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error


class AddSettings(MemberSettings):
    """Let a member in. Flags override HUNCH_BROKER_… variables, which override the TOML file."""

    days: int = Field(730, ge=1, le=3650, description="how long its certificate is good")


class RotateSettings(AddSettings):
    """New credentials for a member. Flags override HUNCH_BROKER_… variables, which override the TOML file."""

    at_once: bool = Field(False, description="revoke the old certificate now instead of letting it expire")


class RotateServerSettings(BrokerFolderSettings):
    """A new certificate for the broker itself. Flags override HUNCH_BROKER_… variables and the TOML file."""

    days: int = Field(730, ge=1, le=3650, description="how long the certificate is good")


ADDED_ROLES = {f"add-{role.value}": role for role in Role}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
