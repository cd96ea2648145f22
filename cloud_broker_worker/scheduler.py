"""What to evaluate next. In: frames from all agents, in order. Out: batches of work. Pure.

A batch holds at most one piece of work a session, because the next one depends on its verdict, and as many
sessions as the token budget allows. Frames that need no model are answered on the way.

Prompts are taken in by pieces, in what drafts leave of the budget (as Sarathi does, arXiv:2308.16369), in equal shares.
All pieces of a batch together are no longer than what the target model evaluates in a quarter of a second: the verdicts
of other sessions wait for the pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cloud_broker_worker.sessions import Admission, Session, SessionTable, Work
from schemas.frames import Draft, Open

# How long the prompts in a batch may hold up the verdicts of other sessions: an eighth of the usual timeout.
_MAX_HOLD_S = 0.25
# Tokens of prompts in a batch while others wait: at least, so that each pass gets on; and before any was timed.
_LEAST_SHARE, _FIRST_SHARE = 16, 64


@dataclass(frozen=True)
class Arrival:
    """A frame, who sent it, and when it came (seconds, monotonic)."""

    agent: str
    frame: Open | Draft
    at_s: float

    @property
    def num_tokens(self) -> int:
        """How many tokens of the budget it takes, at most: none for a prompt, which has what the others leave."""
        if isinstance(self.frame, Open):
            return 0
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

    def add(self, work: Work, arrived_at_s: float) -> None:
        """One piece of work more."""
        self.work.append(work)
        self.arrived_at_s.append(arrived_at_s)


class Scheduler:
    """First come, first served, one piece of work a session and batch, up to a number of tokens."""

    def __init__(self, sessions: SessionTable, max_tokens: int) -> None:
        self._sessions, self._max_tokens = sessions, max_tokens
        self._waiting: deque[Arrival] = deque()
        self._prompts: list[tuple[Work, float]] = []  # each whole, and when it came
        self._prompt_tokens = min(max_tokens, _FIRST_SHARE)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._prompts)

    def add(self, arrival: Arrival) -> None:
        """Queue a frame."""
        self._waiting.append(arrival)

    def next_batch(self, now_s: float) -> Batch:
        """The next batch; empty when nothing waits. The first draft is taken whatever its size."""
        batch, deferred = Batch(), deque[Arrival]()
        self._prompts = [prompt for prompt in self._prompts if self._is_current(prompt[0].session)]
        busy = {work.session for work, _ in self._prompts}
        # What comes later for these must wait too, or it would overtake.
        held = {(session.agent, session.number) for session in busy}
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
                busy.add(admission.work.session)
                held.add(name)
                if admission.work.draft is None:
                    self._prompts.append((admission.work, arrival.at_s))
                    continue
                batch.add(admission.work, arrival.at_s)
                num_tokens += admission.work.num_tokens
        self._waiting.extendleft(reversed(deferred))
        for work, arrived_at_s in self._pieces(num_tokens):
            batch.add(work, arrived_at_s)
        return batch

    def evaluated(self, batch: Batch, seconds: float) -> None:
        """Learn from a pass over a batch how much of the prompts may be in one."""
        if seconds <= 0 or all(work.draft is not None for work in batch.work):
            return
        fits = sum(work.num_tokens for work in batch.work) * _MAX_HOLD_S / seconds
        # Doubled at most: short passes are slow for their size, and one that was fast by chance is not believed.
        most, size = min(self._max_tokens, 2 * self._prompt_tokens, fits), _LEAST_SHARE
        while 2 * size <= most:  # by powers of two, so that the same work is mostly cut alike
            size *= 2
        self._prompt_tokens = min(self._max_tokens, size)

    def _pieces(self, num_tokens: int) -> Iterator[tuple[Work, float]]:
        """As much of the prompts as a batch has room for beside so many tokens.

        All get the same share, and what short ones do not need goes to the longer ones: no question waits until a long
        one before it is taken in.
        """
        is_alone = len(self._sessions) == 1
        room = self._max_tokens if is_alone else min(self._max_tokens - num_tokens, self._prompt_tokens)
        room = max(room, min(self._max_tokens, _LEAST_SHARE))
        by_need = sorted(
            self._prompts, key=lambda prompt: len(prompt[0].ids) - prompt[0].session.num_evaluated
        )
        self._prompts = []
        for index, (whole, arrived_at_s) in enumerate(by_need):
            start = whole.session.num_evaluated
            share = room // (len(by_need) - index)
            piece = replace(whole, ids=whole.ids[: start + share], num_evaluated=start)
            room -= piece.num_tokens
            is_whole = len(piece.ids) == len(whole.ids)
            if not is_whole:
                self._prompts.append((whole, arrived_at_s))
            if is_whole or piece.num_tokens:
                yield piece, arrived_at_s

    def _is_current(self, session: Session) -> bool:
        """Whether the session is still there, and no other one has taken its number."""
        return self._sessions.find(session.agent, session.number) is session

    def _admit(self, arrival: Arrival, busy: set[Session], now_s: float) -> Admission | None:
        """None for what has to wait for the next batch."""
        if arrival.has_expired(now_s):
            return Admission(reason="expired")
        if isinstance(arrival.frame, Open):
            return self._sessions.open(arrival.agent, arrival.frame, busy)
        return self._sessions.admit(arrival.agent, arrival.frame)
