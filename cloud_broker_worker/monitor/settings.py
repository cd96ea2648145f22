"""The monitor's settings. In: flags, environment (HUNCH_MONITOR_…), TOML. Out: checked values."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from runtime.settings import BrokerSettings, default_name
from schemas.errors import ConfigurationError
from schemas.topics import check_name

DEFAULT_FILE = Path("/etc/hunch/monitor.toml")


def _own_name() -> str:
    """A name of its own for each monitor: a broker ends the older of two connections of one name."""
    return f"{default_name()[:40]}-monitor-{os.getpid()}"


class MonitorSettings(BrokerSettings):
    """Watch agents and workers. Flags override HUNCH_MONITOR_… variables, which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_MONITOR_", cli_shortcuts={"as-json": "json"})

    name: str = Field(default_factory=_own_name, description="client id; letters, digits, . _ -")
    agent: str | None = Field(None, description="look at this agent alone, and read its answers as they come")
    model: Path | None = Field(
        None, description="GGUF file of the fleet's vocabulary, to show text; none: token ids"
    )
    once: bool = Field(False, description="print what there is now, and end")
    as_json: bool = Field(False, description="one JSON object a line instead of text (also --json)")
    listen_s: float = Field(1.0, gt=0, le=3600, description="with --once: gather messages for so long")
    connect_timeout_s: float = Field(
        5.0, gt=0, le=600, description="with --once: wait this long for the broker"
    )

    @field_validator("agent")
    @classmethod
    def _agent_fits(cls, name: str | None) -> str | None:
        try:
            return None if name is None else check_name(name)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
