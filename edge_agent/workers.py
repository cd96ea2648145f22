"""Which worker to ask. In: the workers' status messages and the time. Out: names, the best first. Pure.

Rendezvous hashing (Thaler and Ravishankar, 1998), weighed by free sessions: every agent ranks the workers by
its own hash, so agents spread, and one that leaves moves only its own agents.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from schemas.messages import Presence, WorkerStatus
from schemas.vocabulary import Fingerprint, Vocabulary

# Three beats missed: one may be late, two may be lost.
_BEATS_TO_STALE = 3


@dataclass(frozen=True)
class _Seen:
    status: WorkerStatus
    at_s: float


class WorkerDirectory:
    """The workers an agent has heard of. Times are seconds of one monotonic clock."""

    def __init__(self, agent: str, vocabulary: Vocabulary) -> None:
        self._agent, self._vocabulary = agent, vocabulary
        self._seen: dict[str, _Seen] = {}
        self.num_shared = vocabulary.num_tokens  # ids below this are known to all workers that fit

    @property
    def num_tokens(self) -> int:
        """The size of the draft model's vocabulary."""
        return self._vocabulary.num_tokens

    def update(self, worker: str, status: WorkerStatus, now_s: float) -> None:
        """Take in a status. A last will of an earlier start than the one known is late and means nothing."""
        seen = self._seen.get(worker)
        if status.state is Presence.OFFLINE and seen and seen.status.boot != status.boot:
            return
        self._seen[worker] = _Seen(status, now_s)
        shared = [self.shared_vocabulary(name) for name in self._seen]
        sizes = [fingerprint.num_tokens for fingerprint in shared if fingerprint is not None]
        # Whoever may judge the answer: it can move to another worker at any token.
        self.num_shared = min([self.num_tokens, *sizes])

    def boot(self, worker: str) -> int | None:
        """The start that a worker is in; None while it is not known to be online."""
        seen = self._seen.get(worker)
        return None if seen is None or seen.status.state is Presence.OFFLINE else seen.status.boot

    def status(self, worker: str) -> WorkerStatus | None:
        """What the worker said last of itself; None where nothing is known."""
        seen = self._seen.get(worker)
        return None if seen is None else seen.status

    def online(self, now_s: float) -> list[str]:
        """Who has given a recent sign of life, whatever its vocabulary."""
        return sorted(name for name, seen in self._seen.items() if self._is_fresh(seen, now_s))

    def ranked(self, now_s: float) -> list[str]:
        """The workers to try, the best first: fresh, of our vocabulary, free ones before full ones."""
        scores = {name: self._score(name, seen.status) for name, seen in self._usable(now_s).items()}
        return sorted(scores, key=lambda name: (-scores[name], name))

    def shared_vocabulary(self, worker: str) -> Fingerprint | None:
        """The fingerprint to open a session with; None where the vocabularies cannot be of one family."""
        mark = self._seen[worker].status.vocabulary
        if mark is None:
            return None
        return self._vocabulary.shared_with(mark.fingerprint)

    def why_none(self, now_s: float) -> str:
        """Why there is nobody to ask, in one line."""
        online = {name: self._seen[name] for name in self.online(now_s)}
        if not online:
            return (
                "no worker is online" if not self._seen else f"no sign of life from {', '.join(self._seen)}"
            )
        own = self._vocabulary.fingerprint()
        foreign = [f"{name} ({seen.status.model}, {_mark(seen.status)})" for name, seen in online.items()]
        others = ", ".join(foreign)
        return f"the draft model's vocabulary ({own}) is not that of {others}; use models of one family"

    def _usable(self, now_s: float) -> dict[str, _Seen]:
        return {
            name: seen
            for name, seen in self._seen.items()
            if self._is_fresh(seen, now_s) and self.shared_vocabulary(name) is not None
        }

    def _is_fresh(self, seen: _Seen, now_s: float) -> bool:
        age_s = now_s - seen.at_s
        return seen.status.state is Presence.ONLINE and age_s <= _BEATS_TO_STALE * seen.status.beat_s

    def _score(self, name: str, status: WorkerStatus) -> float:
        """Weighted rendezvous score: weight / -ln(uniform hash)."""
        digest = hashlib.blake2b(f"{self._agent}\0{name}".encode(), digest_size=8).digest()
        # The 52 bits in the middle of their interval: neither 0 nor 1 can come out, of which the logarithm fails.
        uniform = ((int.from_bytes(digest) >> 12) + 0.5) / 2**52
        # A full worker can still be asked, it evicts its longest idle session: a last resort.
        weight = max(status.max_sessions - status.sessions, 1e-3)
        return weight / -math.log(uniform)


def _mark(status: WorkerStatus) -> str:
    mark = status.vocabulary
    return "no vocabulary" if mark is None else f"{mark.digest[:12]} over {mark.num_tokens} tokens"
