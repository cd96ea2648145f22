"""How long verdicts take. In: seconds. Out: the figures of an answer, and what is usual. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

# What is usual follows the last five or ten verdicts.
_STEP = 0.2


@dataclass
class RoundTrips:
    """How long the verdicts of one answer took, in seconds."""

    seconds: list[float] = field(default_factory=list)
    num_missed: int = 0

    @property
    def median_ms(self) -> float | None:
        """Their median; None where there were none."""
        return self._percentile_ms(50)

    @property
    def p99_ms(self) -> float | None:
        """Their 99th percentile; None where there were none."""
        return self._percentile_ms(99)

    def _percentile_ms(self, percentage: float) -> float | None:
        return float(np.percentile(self.seconds, percentage)) * 1000 if self.seconds else None


class UsualRoundTrip:
    """A mean of late, over all answers; infinite until the first verdict."""

    def __init__(self) -> None:
        self.seconds = math.inf

    def note(self, seconds: float) -> None:
        """One more verdict took so long."""
        self.seconds = (
            seconds if math.isinf(self.seconds) else self.seconds + _STEP * (seconds - self.seconds)
        )
