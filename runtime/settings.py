"""Settings from flags, environment variables and a TOML file, in that order of weight. In: argv. Out: values.

Commands that connect to a broker derive their settings from `BrokerSettings`, those that run a model from
`HunchSettings`.
pydantic-settings makes the flags and their help from the fields, so that each setting is written down once.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from runtime.credentials import read_credentials
from runtime.link import BrokerAddress
from schemas.errors import ConfigurationError
from schemas.topics import DEFAULT_ROOT, Topics, check_name

AnySettings = TypeVar("AnySettings", bound="FileSettings")
_Value = TypeVar("_Value")
_Result = TypeVar("_Result")


def default_name() -> str:
    """The machine's host name, made fit to be a topic level."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().split(".")[0])[:64] or "unnamed"


class FileSettings(BaseSettings):
    """What all commands have in common: a TOML file may say it all. Subclasses set `env_prefix`."""

    model_config = SettingsConfigDict(extra="forbid", env_ignore_empty=True, cli_kebab_case=True)

    config: Path | None = Field(
        None, description="TOML file with any of these settings (dashes as underscores)"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  not used: one file is enough
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags come in as a source of their own (see `load`); then the environment, then the file."""
        file = settings_cls.model_config.get("toml_file")
        toml = (TomlConfigSettingsSource(settings_cls, file),) if file else ()
        return (init_settings, env_settings, *toml)


class BrokerSettings(FileSettings):
    """What all that connects to the broker has in common."""

    credentials: Path | None = Field(
        None, description="file from `broker add-…`: name, broker, certificate and key in one"
    )
    name: str = Field(default_factory=default_name, description="name in topics; letters, digits, . _ -")
    broker: str = Field(
        "mqtt://127.0.0.1:1883",
        description="MQTT 5 broker, mqtt:// or mqtts:// (TLS), with user and port",
        repr=False,  # it may hold a password
    )
    username: str | None = Field(None, description="broker user; by default the one in the broker's address")
    password: str | None = Field(
        None, description="broker password; better given as environment variable", repr=False
    )
    ca_file: Path | None = Field(None, description="certificate authority of the broker")
    cert_file: Path | None = Field(None, description="client certificate")
    key_file: Path | None = Field(None, description="key of the client certificate")
    topic_root: str = Field(DEFAULT_ROOT, description="first levels of all topics")
    log_level: str = Field("warning", pattern="^(debug|info|warning|error)$", description="debug to error")

    @model_validator(mode="before")
    @classmethod
    def _credentials_fill_in(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Credentials give what no other source gives, but for the name: the broker knows only theirs."""
        if not isinstance(given.get("credentials"), str | Path):
            return given  # none, or what the field's own check will refuse
        file = Path(given["credentials"])
        found = _as_value_error(lambda path: read_credentials(path).settings(path), file)
        if given.get("name", found["name"]) != found["name"]:
            raise ValueError(f"{file} is for {found['name']!r}, but the name is set to {given['name']!r}")
        return {**found, **given}

    @field_validator("name")
    @classmethod
    def _name_fits(cls, name: str) -> str:
        return _as_value_error(check_name, name)

    @field_validator("topic_root")
    @classmethod
    def _root_fits(cls, root: str) -> str:
        return _as_value_error(lambda value: Topics(value).root, root)

    @field_validator("broker")
    @classmethod
    def _broker_fits(cls, broker: str) -> str:
        return _as_value_error(_check_url, broker)

    @property
    def topics(self) -> Topics:
        """The topics under the set root."""
        return Topics(self.topic_root)

    def broker_address(self) -> BrokerAddress:
        """The broker and who asks; raises ConfigurationError for what cannot work."""
        url = urlsplit(_with_scheme(self.broker))
        tls = url.scheme == "mqtts"
        return BrokerAddress(
            host=url.hostname or "",
            port=url.port or (8883 if tls else 1883),
            username=self.username or (unquote(url.username) if url.username else None),
            password=self.password or (unquote(url.password) if url.password else None),
            client_id=self.name,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            tls=tls,
        )


class HunchSettings(BrokerSettings):
    """What agents and workers have in common: a broker and a model."""

    model: Path = Field(description="GGUF file")
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="threads for llama.cpp"
    )
    gpu_layers: int = Field(0, ge=0, description="layers of the model to put on a GPU")
    metrics_address: str | None = Field(
        None, description="address and port where `run` shows its metrics to Prometheus; off: nowhere"
    )

    @field_validator("metrics_address")
    @classmethod
    def _metrics_address_fits(cls, address: str | None) -> str | None:
        return None if address in {None, "off"} else _as_value_error(_check_listener, address)


def load(cls: type[AnySettings], argv: list[str], *, prog: str, default_file: Path) -> AnySettings:
    """Settings for a command. Raises ConfigurationError that names the setting at fault; --help exits."""
    prefix = str(cls.model_config["env_prefix"])
    path = config_file(argv, prefix, default_file)

    class Configured(cls):  # type: ignore[valid-type, misc]  # the file's name is read off the class
        model_config = SettingsConfigDict(toml_file=path)

    Configured.__name__ = Configured.__qualname__ = cls.__name__
    Configured.__doc__ = cls.__doc__
    try:
        flags: CliSettingsSource[Any] = CliSettingsSource(
            Configured,
            cli_prog_name=prog,
            cli_parse_args=argv,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
            cli_avoid_json=True,
            cli_exit_on_error=False,
        )
        settings: AnySettings = Configured(_cli_settings_source=flags)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, prefix, path)) from None
    except SettingsError as error:
        raise ConfigurationError(_explain_source(error, prefix)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"configuration file {path}: {error.strerror}") from None
    return settings


def config_file(argv: list[str], prefix: str, default_file: Path) -> Path | None:
    """The TOML file to read: --config, then the environment, then the default file if there is one."""
    given = os.environ.get(f"{prefix}CONFIG") or None
    for index, word in enumerate(argv):
        if word == "--config" and index + 1 < len(argv):
            given = argv[index + 1]
        elif word.startswith("--config="):
            given = word.removeprefix("--config=")
    if given is None:
        return default_file if default_file.is_file() else None
    if not Path(given).is_file():
        raise ConfigurationError(f"configuration file {given} does not exist")
    return Path(given)


def _explain(error: ValidationError, prefix: str, path: Path | None) -> str:
    """The first problem in one line: where it stands under all three names, and what would be right."""
    problem = error.errors()[0]
    # Of a list the whole, not the entry at fault; a fault of several settings together has no place.
    field = str(problem["loc"][0]) if problem["loc"] else ""
    flag = f"--{field.replace('_', '-')}" if len(field) > 1 else f"-{field}"
    count = len(error.errors())
    more = f" (and {count - 1} more)" if count > 1 else ""
    if problem["type"] == "missing":
        return f"{field} is not set: give {flag}, {prefix}{field.upper()} or {field} in the TOML file{more}"
    if problem["type"] == "extra_forbidden":
        return f"{path or 'settings'}: there is no setting named {field!r}; --help lists all{more}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not field:
        return f"{message}{more}"
    return f"{flag} ({prefix}{field.upper()}): {message}{more}"


def _explain_source(error: SettingsError, prefix: str) -> str:
    """A flag that does not exist or lacks its value; a variable that cannot be read."""
    variable = re.search(r'value for field "(\w+)" from source "EnvSettingsSource"', str(error))
    if variable:
        return f'{prefix}{variable[1].upper()}: a list is written as JSON, such as ["one", "two"]'
    return f"{str(error).removeprefix('error parsing CLI: ')}; --help lists all settings"


def _as_value_error(check: Callable[[_Value], _Result], value: _Value) -> _Result:
    try:
        return check(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _check_listener(address: str) -> str:
    host, _, port = address.rpartition(":")
    if host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
        return address
    raise ConfigurationError(f"{address!r} is no address and port; write 127.0.0.1:9464, or off")


def _without_user(broker: str) -> str:
    """The address fit for a log: a password may stand before the @, however wrongly it is written."""
    before, at, host = broker.rpartition("@")
    return f"{before[: before.find('://') + 3] if '://' in before else ''}…@{host}" if at else broker


def _with_scheme(broker: str) -> str:
    return broker if "://" in broker else f"mqtt://{broker}"


def _check_url(broker: str) -> str:
    try:
        url = urlsplit(_with_scheme(broker))
        fits = url.scheme in {"mqtt", "mqtts"} and bool(url.hostname) and url.port != 0
        fits = fits and url.path in {"", "/"} and not (url.query or url.fragment)
    except ValueError:  # brackets or a port that cannot be; its text may quote a part of a password
        fits = False
    if not fits:
        raise ConfigurationError(
            f"{_without_user(broker)!r} is not a broker address; write mqtt://user@host:1883 or mqtts://…"
            + (" (in a password, / # ? and @ as %2F %23 %3F and %40)" if "@" in broker else "")
        )
    return broker
