"""`fetch-model`, a command of both programs. In: argv. Out: the model's path on standard output."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from runtime.command_line import Command
from runtime.model_files import fetch_model
from runtime.settings import FileSettings, load

DEFAULT_FILE = Path("/etc/hunch/fetch-model.toml")


class FetchModelSettings(FileSettings):
    """Bring a model file here and check it. Flags override HUNCH_FETCH_MODEL_… variables and the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_FETCH_MODEL_")

    source: CliPositionalArg[str] = Field(
        description="path, https://… with --sha256, hf:OWNER/NAME/FILE.gguf or hf:OWNER/NAME:PATTERN"
    )
    sha256: str | None = Field(None, description="the file's checksum; must be given for a URL")
    to: Path = Field(Path("/var/lib/hunch/models"), description="folder where models are kept")


def fetch_model_command(prog: str) -> Command:
    """The command, for the program of this name."""

    def run(argv: list[str]) -> None:
        settings = load(FetchModelSettings, argv, prog=f"{prog} fetch-model", default_file=DEFAULT_FILE)
        path = fetch_model(settings.source, settings.to, sha256=settings.sha256)
        sys.stdout.write(f"{path}\n")

    return Command("bring a model file here and check it", run)
