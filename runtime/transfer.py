"""What moves large files has in common. In: files and numbers of bytes. Out: a progress bar, a checksum, room.

The bar goes to standard error, and only where that is a terminal: a log has no use for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import rich.progress
from rich.console import Console

from schemas.errors import ConfigurationError

# Told how many bytes are here, and how many there will be; None where nobody knows.
Report = Callable[[int, int | None], None]

CHUNK_BYTES = 1 << 18
# A disk that is full to the last byte stops more than a download: the journal, the package manager.
_SPARE_BYTES = 64 << 20


@contextlib.contextmanager
def progress(what: str) -> Iterator[Report]:
    """Show how far a transfer is, at which speed, and when it will be done."""
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda num_bytes, total: shown.update(task, completed=num_bytes, total=total)


def sha256_of(path: Path) -> str:
    """The checksum of a whole file (hex)."""
    state, total = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file, progress("checking") as report:
        while chunk := file.read(CHUNK_BYTES):
            state.update(chunk)
            report(file.tell(), total)
    return state.hexdigest()


def require_room(folder: Path, num_bytes: int) -> None:
    """Raise ConfigurationError where a file of this size would fill the disk."""
    free = shutil.disk_usage(folder).free
    if num_bytes + _SPARE_BYTES > free:
        raise ConfigurationError(
            f"{folder} has {_megabytes(free)} free, {_megabytes(num_bytes + _SPARE_BYTES)} are needed"
            " (64 MB of it to spare); make room, or choose another folder or a smaller model"
        )


def replace_durably(file: Path, target: Path) -> None:
    """Give a file its final name, so that even a power cut leaves either the old one or the whole new one."""
    _sync(file)
    file.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f} MB"
