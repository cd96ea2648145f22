"""The settings of `home-assistant`. In: flags, environment (HUNCH_HOME_ASSISTANT_…), TOML. Out: checked values."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from runtime.settings import BrokerSettings, default_name
from schemas.errors import ConfigurationError
from schemas.home_assistant import DEFAULT_PREFIX
from schemas.topics import check_name

DEFAULT_FILE = Path("/etc/hunch/home-assistant.toml")


class HomeAssistantSettings(BrokerSettings):
    """Show the fleet in Home Assistant. Flags override HUNCH_HOME_ASSISTANT_…, which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_HOME_ASSISTANT_")

    name: str = Field(
        default_factory=lambda: f"{default_name()[:40]}-home-assistant",
        description="client id; letters, digits, . _ -",
    )
    prefix: str = Field(DEFAULT_PREFIX, description="first levels of discovery topics, as in Home Assistant")
    birth_topic: str | None = Field(
        None, description="where Home Assistant says that it has started; none: PREFIX/status"
    )
    connect_timeout_s: float = Field(10.0, gt=0, le=600, description="wait this long for the broker")

    @field_validator("prefix", "birth_topic")
    @classmethod
    def _is_topic(cls, topic: str | None) -> str | None:
        try:
            return None if topic is None else "/".join(check_name(level) for level in topic.split("/"))
        except ConfigurationError as error:
            raise ValueError(str(error)) from error

    @property
    def birth(self) -> str:
        """Where Home Assistant says that it has started."""
        return self.birth_topic or f"{self.prefix}/status"


class PurgeSettings(HomeAssistantSettings):
    """Take the fleet out of Home Assistant. Flags override HUNCH_HOME_ASSISTANT_…, which override the TOML file."""
