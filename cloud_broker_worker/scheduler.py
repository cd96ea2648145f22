"""What to evaluate next. In: frames from all agents, in order. Out: batches of work. Pure.

A batch holds at most one piece of work a session, because the next one depends on its verdict, and as many
sessions as the token budget allows. Frames that need no model are answered on the way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cloud_broker_worker.sessions import Admission, Session, SessionTable, Work
from schemas.frames import Draft, Open


@dataclass(frozen=True)
class Arrival:
    """A frame, who sent it, and when it came (seconds, monotonic)."""

    agent: str
    frame: Open | Draft
    at_s: float

    @property
    def num_tokens(self) -> int:
        """How many tokens it makes the target model evaluate, at most."""
        if isinstance(self.frame, Open):
            return len(self.frame.prompt_ids)
        # The last token known to the worker, the run, and the token in doubt.
        return len(self.frame.run_ids) + 2

    def has_expired(self, now_s: float) -> bool:
        """Whether its agent has stopped waiting: it will send the same tokens again in a newer draft."""
        doubt = self.frame.doubt if isinstance(self.frame, Draft) else None
        return doubt is not None and now_s - self.at_s > doubt.deadline_ms / 1000


@dataclass(frozen=True)
class Batch:
    """Work for one pass of the target model, and the admissions that need none, each with its agent.

    `arrived_at_s` says of each piece of work when its frame came.
    """

    work: list[Work] = field(default_factory=list)
    arrived_at_s: list[float] = field(default_factory=list)
    answered: list[tuple[str, Admission]] = field(default_factory=list)


class Scheduler:
    """First come, first served, one piece of work a session and batch, up to a number of tokens."""

    def __init__(self, sessions: SessionTable, max_tokens: int) -> None:
        self._sessions, self._max_tokens = sessions, max_tokens
        self._waiting: deque[Arrival] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, arrival: Arrival) -> None:
        """Queue a frame."""
        self._waiting.append(arrival)

    def next_batch(self, now_s: float) -> Batch:
        """The next batch; empty when nothing waits. The first piece of work is taken whatever its size."""
        batch, deferred = Batch(), deque[Arrival]()
        busy: set[Session] = set()
        held: set[tuple[str, int]] = set()  # what comes later for these must wait too, or it would overtake
        num_tokens = 0
        while self._waiting:
            if batch.work and num_tokens + self._waiting[0].num_tokens > self._max_tokens:
                break
            arrival = self._waiting.popleft()
            name = (arrival.agent, arrival.frame.session)
            admission = None if name in held else self._admit(arrival, busy, now_s)
            if admission is None:
                deferred.append(arrival)
                held.add(name)
            elif admission.work is None:
                batch.answered.append((arrival.agent, admission))
            else:
                batch.work.append(admission.work)
                batch.arrived_at_s.append(arrival.at_s)
                busy.add(admission.work.session)
                held.add(name)
                num_tokens += len(admission.work.ids) - admission.work.num_evaluated
        self._waiting.extendleft(reversed(deferred))
        return batch

    def _admit(self, arrival: Arrival, busy: set[Session], now_s: float) -> Admission | None:
        """None for what has to wait for the next batch."""
        if arrival.has_expired(now_s):
            return Admission(reason="expired")
        if isinstance(arrival.frame, Open):
            return self._sessions.open(arrival.agent, arrival.frame, busy)
        return self._sessions.admit(arrival.agent, arrival.frame)
