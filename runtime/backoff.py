"""How long to wait before the next try. In: nothing but a random generator. Out: seconds."""

from __future__ import annotations

import random

# Doubling 0.2 s reaches any sensible cap long before this; it keeps 2 ** n from growing without end.
_MAX_DOUBLINGS = 32


class Backoff:
    """Exponential backoff with full jitter: each delay is uniform over [0, min(max_s, base_s * 2**n)].

    Full jitter spreads a fleet that lost its broker at the same instant over the whole interval, where a
    delay without jitter would bring all of it back at once, time after time.
    """

    def __init__(self, base_s: float = 0.2, max_s: float = 30.0, rng: random.Random | None = None) -> None:
        self._base_s = base_s
        self._max_s = max_s
        self._rng = random.Random() if rng is None else rng
        self._num_failures = 0

    def next_delay_s(self) -> float:
        """Count one more failure and return how long to wait after it."""
        ceiling_s = min(self._max_s, self._base_s * 2.0 ** min(self._num_failures, _MAX_DOUBLINGS))
        self._num_failures += 1
        return self._rng.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        """Start again from the shortest delay: what failed has worked since."""
        self._num_failures = 0
