"""Profiles as files. In: a path. Out: a checked profile."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import ConfigurationError, WireError
from schemas.messages import parse_message
from schemas.profile import Profile


def read_profile(path: Path) -> Profile:
    """A profile from a file. Raises ConfigurationError in one line."""
    try:
        return parse_message(Profile, path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read the profile {path}: {error.strerror}") from error
    except WireError as error:
        raise ConfigurationError(f"{path} is no profile of this version: {error}") from error
