"""Where to open a session. In: what happened with workers, and the time. Out: a worker's name, or none. Pure.

A worker that missed a verdict is distrusted until it gives a sign of life: others come first, and nobody waits
for it. One that refused is left alone for a while. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from edge_agent.workers import WorkerDirectory

# How often a session is opened again while nobody answers, and how long a worker that refused is left alone.
RETRY_S = 1.0
REFUSED_S = 30.0


class Placement:
    """Picks the worker for the next session of one agent."""

    def __init__(self, directory: WorkerDirectory) -> None:
        self._directory = directory
        self._refused_until_s: dict[str, float] = {}
        self._distrusted: set[str] = set()
        self._retry_at_s = 0.0

    def candidates(self, now_s: float) -> list[str]:
        """Who could be asked, the best first, distrusted ones included."""
        return [
            name for name in self._directory.ranked(now_s) if self._refused_until_s.get(name, 0.0) <= now_s
        ]

    def choose(self, now_s: float, suspect: str | None = None, suspect_since_s: float = 0.0) -> str | None:
        """The worker to open at now; None: nobody, or not yet.

        Trusted ones come first. With none of them, a suspect is given time for a late verdict, and then those
        that are distrusted are tried in turn, the suspect itself last.
        """
        candidates = self.candidates(now_s)
        if now_s < self._retry_at_s or not candidates:
            return None
        trusted = [name for name in candidates if name not in self._distrusted]
        if not trusted and suspect is not None:
            if now_s - suspect_since_s < RETRY_S:
                return None
            candidates.sort(key=lambda name: name == suspect)
        self._retry_at_s = now_s + RETRY_S
        return (trusted or candidates)[0]

    def begin(self, now_s: float) -> None:
        """A new answer: who is trusted is chosen at once. The others are tried no more often for that.

        Else short answers would open sessions faster than a busy worker takes in their prompts.
        """
        if any(self.trusts(name) for name in self.candidates(now_s)):
            self.choose_at_once()

    def choose_at_once(self) -> None:
        """Let the next choice be made without a pause: what was opened last is known to be lost."""
        self._retry_at_s = 0.0

    def trusts(self, worker: str) -> bool:
        """Whether a worker may be waited for."""
        return worker not in self._distrusted

    def distrust(self, worker: str) -> None:
        """It missed a verdict."""
        self._distrusted.add(worker)

    def trust(self, worker: str) -> None:
        """It gave a sign of life, or it has started anew: if that is news, it is chosen at once."""
        if worker in self._distrusted:
            self._distrusted.remove(worker)
            self.choose_at_once()

    def refused(self, worker: str, now_s: float) -> None:
        """It refused a session."""
        self._refused_until_s[worker] = now_s + REFUSED_S

    def why_none(self, now_s: float) -> str | None:
        """Why there is nobody to ask, in one line; None where that was said when the last one refused."""
        if any(until_s > now_s for until_s in self._refused_until_s.values()):
            return None
        return self._directory.why_none(now_s)
