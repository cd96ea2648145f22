"""How often something happens. In: counts and the time. Out: how many a second, of late. Pure."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10


class Rate:
    """Counts of the last ten seconds, kept by the second."""

    def __init__(self) -> None:
        self._buckets: deque[list[int]] = deque(maxlen=WINDOW_S + 1)  # [second, count]

    def add(self, now_s: float, count: int = 1) -> None:
        """Count something in."""
        second = int(now_s)
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1][1] += count
        else:
            self._buckets.append([second, count])

    def per_second(self, now_s: float) -> float:
        """The mean over the last ten seconds."""
        return sum(count for second, count in self._buckets if second > now_s - WINDOW_S) / WINDOW_S
