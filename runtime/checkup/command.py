"""A doctor's command. In: argv. Out: its check-up on standard output, and an error where something failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from runtime.checkup.checks import Result, from_error
from runtime.checkup.doctor import Doctor
from runtime.checkup.settings import CheckupSettings
from runtime.checkup.show import carry_out, print_document
from runtime.command_line import set_up_logging
from runtime.settings import config_file, load
from schemas.errors import ConfigurationError

_Settings = TypeVar("_Settings", bound=CheckupSettings)


def check_up(
    prog: str,
    argv: list[str],
    kind: type[_Settings],
    default_file: Path,
    doctor: Callable[[_Settings, Path | None], Doctor],
) -> None:
    """Load settings of a kind and carry out the doctor's checks.

    Raises CheckupFailed where a check fails, ConfigurationError for settings that cannot be used at all.
    """
    try:
        settings = load(kind, argv, prog=prog, default_file=default_file)
        file = config_file(argv, str(kind.model_config["env_prefix"]), default_file)
    except ConfigurationError as error:
        if {"--json", "--as-json"} & {*argv}:  # who reads JSON gets JSON
            print_document([Result("settings", from_error(error))], prog=prog, name=None)
        raise
    # What goes wrong is for the checks to say, once.
    set_up_logging("critical" if settings.log_level in {"warning", "error"} else settings.log_level)
    with doctor(settings, file) as made:
        carry_out(made.checks(), prog=prog, name=settings.name, as_json=settings.as_json)
