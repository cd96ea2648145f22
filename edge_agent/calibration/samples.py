"""Samples on disk, so that a calibration can be interrupted. In: samples. Out: the same, later.

One line of JSON for what the samples are of, then one a stretch. A line cut short by a power cut is dropped, and
its stretch collected again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.calibration.replay import Sample
from edge_agent.calibration.texts import Stretch
from schemas.errors import ConfigurationError

_FIELDS = tuple(field.name for field in dataclasses.fields(Sample))


class SampleFile:
    """The samples of one calibration, by number of the stretch. Raises ConfigurationError for another one's."""

    def __init__(self, path: Path, subject: dict[str, Any]) -> None:
        self.by_stretch: dict[int, list[Sample]] = {}
        try:
            if path.exists():
                self._read(path, subject)
            else:
                path.write_text(json.dumps(subject) + "\n", encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot use {path} for the samples: {error}") from error

    def add(self, number: int, samples: list[Sample]) -> None:
        """Keep the samples of a stretch, for good."""
        rows = [[getattr(sample, name) for name in _FIELDS] for sample in samples]
        self._file.write(json.dumps([number, rows], separators=(",", ":")) + "\n")
        self._file.flush()
        self.by_stretch[number] = samples

    def close(self) -> None:
        """Write all to disk and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _read(self, path: Path, subject: dict[str, Any]) -> None:
        head, *lines = path.read_text(encoding="utf-8").split("\n")
        try:
            is_same = json.loads(head) == subject
        except ValueError:
            is_same = False
        if not is_same:
            raise ConfigurationError(
                f"{path} holds samples of other models, texts or settings; delete it or choose another --output"
            )
        whole = [head, *(line for line in lines[:-1] if _is_whole(line))]
        for line in whole[1:]:
            number, rows = json.loads(line)
            self.by_stretch[number] = [_sample(row) for row in rows]
        path.write_text("\n".join(whole) + "\n", encoding="utf-8")


def texts_digest(stretches: Sequence[Stretch]) -> str:
    """A hash over the tokens, to know the same text again."""
    state = hashlib.blake2b(digest_size=16)
    for stretch in stretches:
        state.update(repr((stretch.document, stretch.prompt_ids, stretch.text_ids)).encode())
    return state.hexdigest()


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _sample(row: list[Any]) -> Sample:
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row]
    return Sample(**dict(zip(_FIELDS, values, strict=True)))
