"""What both doctors' settings have beside those of the process that they look at."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from runtime.settings import HunchSettings


class CheckupSettings(HunchSettings):
    """To be mixed into the settings of an agent or a worker, before them."""

    model: Path = Field(Path(), description="GGUF file")  # that there is none is for the check-up to say
    as_json: bool = Field(False, description="one JSON document instead of lines (also --json)")
