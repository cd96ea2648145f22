"""What can be measured, and what it came to. In: names with their meaning, values. Out: readings. Pure.

Each end has one table of its metrics. The page that Prometheus reads, the documentation, the dashboard and the
alert rules go by that table, and a test holds them to it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

# From a broker next door (below a millisecond) to the default verdict timeout and past it.
SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# Tokens or pieces of work in one pass of a model.
COUNT_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Kind(Enum):
    """What a metric's values do; the names are those of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric: its full name, and what it means, in a line. Labels take few values, never names of others."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which its values stand on the page."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


class Histogram:
    """How many values lay at or below each bound, and their sum. One thread adds; any may read."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """Enter one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: Iterable[float]) -> None:
        """Enter several values."""
        for value in values:
            self.add(value)

    def cumulative(self) -> list[tuple[str, int]]:
        """For each bound, as text, how many values lay at or below it; the last one is +Inf.

        Example: bounds 1 and 2, values 0.5, 1 and 7: [("1.0", 2), ("2.0", 2), ("+Inf", 3)].
        """
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


@dataclass(frozen=True)
class Reading:
    """A metric's value now; `labels` in the order of the metric's own."""

    metric: Metric
    value: float | Histogram
    labels: tuple[str, ...] = ()
