"""What was measured, as a CSV file. In: rows. Out: the same, later: a run that was interrupted goes on.

A row is a cell: a method at a temperature over a link, and its sums. `subject` says of what: rows of other calls,
models or settings are left out when a file is read.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.paper.counts import SUM_NAMES, Sums
from benchmarks.paper.methods import rank
from schemas.errors import ConfigurationError


@dataclass(frozen=True)
class Key:
    """Which cell: `part` is "calls" (all calls, no delay) or "links"."""

    part: str
    link: str
    temperature: float
    method: str


_KEY_NAMES = tuple(field.name for field in fields(Key))
_HEADER = ("subject", *_KEY_NAMES, *SUM_NAMES)


class Results:
    """Rows by cell, each written as soon as it is there."""

    def __init__(self, file: Path, subject: str) -> None:
        self.rows: dict[Key, Sums] = {}
        self._file, self._subject = file, subject
        if file.exists():
            self._read()
        self._write()

    def add(self, key: Key, sums: Sums) -> None:
        """Keep a row for good."""
        self.rows[key] = sums
        self._write()

    def of(self, part: str, link: str, temperature: float) -> dict[str, Sums]:
        """The rows of one table, by method, in the order of a table."""
        found = {
            key.method: sums
            for key, sums in self.rows.items()
            if (key.part, key.link, key.temperature) == (part, link, temperature)
        }
        return {name: found[name] for name in sorted(found, key=rank)}

    def _read(self) -> None:
        try:
            with self._file.open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    if row["subject"] == self._subject:
                        key = Key(row["part"], row["link"], float(row["temperature"]), row["method"])
                        self.rows[key] = _sums(row)
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{self._file} is not a file of results ({error}); delete it or choose another --output"
            ) from error

    def _write(self) -> None:
        """Whole, beside the old file and then in its place, so that no interruption leaves half of it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".part")
        with fresh.open("w", encoding="utf-8", newline="") as lines:
            rows = csv.writer(lines, lineterminator="\n")
            rows.writerow(_HEADER)
            for key, sums in self.rows.items():
                rows.writerow([self._subject, *asdict(key).values(), *asdict(sums).values()])
        fresh.replace(self._file)


def _sums(row: dict[str, str]) -> Sums:
    sums = Sums()
    for name in SUM_NAMES:
        setattr(sums, name, type(getattr(sums, name))(row[name]))
    return sums
