"""Keeps a fault that repeats a thousand times a second from filling the disk. In: a clock. Out: yes or no."""

from __future__ import annotations

import time
from collections.abc import Callable


class LogThrottle:
    """Says yes at most once in `every_s` seconds."""

    def __init__(self, every_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._last: float | None = None

    def allows(self) -> bool:
        """True if a line may be logged now; it then counts as logged."""
        now = self._clock()
        if self._last is not None and now - self._last < self._every_s:
            return False
        self._last = now
        return True
