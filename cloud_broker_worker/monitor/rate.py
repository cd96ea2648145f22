"""How often something happens. In: counts and the time. Out: how many a second, of late. Pure."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10


class Rate:
    """Counts of the last ten seconds, kept by the second."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._buckets: deque[tuple[int, int]] = deque(maxlen=WINDOW_S + 1)  # (second, count)

    def add(self, now_s: float, count: int = 1) -> None:
        """Count something in."""
        second = int(now_s)
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, self._buckets[-1][1] + count)
        else:
            self._buckets.append((second, count))

    def per_second(self, now_s: float) -> float:
        """The mean over the last ten seconds, or over the time since the start where that is shorter."""
        window_s = min(float(WINDOW_S), max(1.0, now_s - self._started_s))
        return sum(count for second, count in self._buckets if second > now_s - WINDOW_S) / window_s

    def history(self, now_s: float) -> list[int]:
        """The counts of the last ten whole seconds, the oldest first."""
        counts = dict(self._buckets)
        return [counts.get(second, 0) for second in range(int(now_s) - WINDOW_S, int(now_s))]
