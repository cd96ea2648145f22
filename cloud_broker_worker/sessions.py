"""Who has a session, and what it knows. In: frames, verdicts. Out: work, or a reply at once. Pure.

The rules of session, epoch and position stand in docs/protocol.md. A session's `ids` are what the worker
knows of the answer. The target's cache holds the first `num_evaluated` of them, always fewer than all: the
logits before the next token come from evaluating the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cloud_broker_worker.verification import num_rows
from schemas.frames import Draft, Open, Outcome, Ready, Refused, Resync, Verdict, WorkerFrame
from schemas.sampling import SamplingParameters


@dataclass(eq=False)
class Session:
    """One answer of one agent. `sequence` is its place in the target's cache."""

    agent: str
    number: int
    sequence: int
    sampling: SamplingParameters
    seed: int
    num_tokens: int  # ids below this are the vocabulary that both models share
    ids: list[int]
    num_evaluated: int = 0
    # Drafts of an epoch below are stale; `last_draft` is the newest one's epoch and position.
    floor: int = 0
    last_draft: tuple[int, int] | None = None
    last_verdict: Verdict | None = None


@dataclass(frozen=True)
class Work:
    """What the target model is to do for a session: judge a draft, or (None) take in its prompt, or a piece of it.

    Evaluate `ids` from `num_evaluated` on, with logits after each of the last `num_rows`.
    """

    session: Session
    draft: Draft | None
    ids: list[int]
    num_evaluated: int
    num_rows: int

    @property
    def num_tokens(self) -> int:
        """How many tokens are to be evaluated."""
        return len(self.ids) - self.num_evaluated


@dataclass(frozen=True)
class Admission:
    """What becomes of a frame: work, or a reply at once, or nothing. `reason` says why there is no work."""

    work: Work | None = None
    reply: WorkerFrame | None = None
    reason: str | None = None


@dataclass
class SessionTable:
    """All sessions, the longest idle first. A full table evicts that one; its agent learns when it asks."""

    max_sessions: int
    n_ctx: int
    num_evicted: int = 0
    _sessions: dict[tuple[str, int], Session] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def find(self, agent: str, number: int) -> Session | None:
        """The session of that number."""
        return self._sessions.get((agent, number))

    def open(self, agent: str, opening: Open, busy: set[Session]) -> Admission | None:
        """A new session, in place of the longest idle one where the table is full.

        `busy` sessions have work under way and stay; None while that is all of them.
        """
        if len(opening.prompt_ids) >= self.n_ctx:
            why = f"{len(opening.prompt_ids)} tokens do not fit the target model's context of {self.n_ctx}"
            return Admission(reply=Refused(opening.session, why), reason="too long")
        self._sessions.pop((agent, opening.session), None)
        sequence = self._free_sequence(busy)
        if sequence is None:
            return None
        session = Session(
            agent,
            opening.session,
            sequence,
            opening.sampling,
            opening.seed,
            opening.vocabulary.num_tokens,
            list(opening.prompt_ids),
        )
        self._sessions[agent, opening.session] = session
        return Admission(Work(session, None, session.ids[:-1], 0, 0))

    def admit(self, agent: str, draft: Draft) -> Admission:
        """A draft, as work if it follows on what the session knows."""
        session = self._touched(agent, draft.session)
        if session is None:
            return Admission(reply=Resync(draft.session, draft.epoch, 0), reason="no session")
        if session.last_draft == (draft.epoch, draft.position):
            return Admission(reply=session.last_verdict, reason="repeated")
        if draft.epoch < session.floor:
            return Admission(reason="stale epoch")
        known = len(session.ids)
        is_newer = session.last_draft is not None and draft.epoch > session.last_draft[0]
        if not (draft.position == known or (is_newer and draft.position < known)):
            return Admission(reply=Resync(draft.session, draft.epoch, known), reason="does not follow")
        if _largest_id(draft) >= session.num_tokens:
            why = f"token id {_largest_id(draft)} is outside the shared vocabulary of {session.num_tokens}"
            return Admission(reply=Refused(draft.session, why), reason="foreign token")
        if draft.end >= self.n_ctx:
            why = f"the answer outgrew the target model's context of {self.n_ctx} tokens"
            return Admission(reply=Refused(draft.session, why), reason="too long")
        return Admission(self._begin(session, draft))

    def prefilled(self, work: Work) -> Ready | None:
        """The prompt is in the cache, or a piece more of it."""
        session = work.session
        session.num_evaluated = len(work.ids)
        is_whole = session.num_evaluated == len(session.ids) - 1
        return Ready(session.number, len(session.ids)) if is_whole else None

    def judged(self, work: Work, verdict: Verdict) -> None:
        """Enter a verdict: what the session knows now, and how much of its cache still holds."""
        session, draft = work.session, work.draft
        assert draft is not None
        session.ids += draft.run_ids
        if draft.doubt is not None:
            # After an accepted token the cache holds it too; a recovered one takes its place uncached.
            if verdict.outcome is Outcome.ACCEPTED:
                session.ids.append(draft.doubt.token_id)
            session.num_evaluated = len(session.ids)
        elif draft.run_ids:
            session.num_evaluated = len(session.ids) - 1
        if verdict.token_id is not None:
            session.ids.append(verdict.token_id)
        session.floor = draft.epoch + (verdict.outcome is Outcome.RECOVERED)
        session.last_verdict = verdict
        if draft.final:
            self.drop(session)

    def drop(self, session: Session) -> None:
        """Forget a session that cannot go on."""
        self._sessions.pop((session.agent, session.number), None)

    def drop_agent(self, agent: str) -> int:
        """Forget all sessions of an agent that has gone; returns how many."""
        gone = [key for key in self._sessions if key[0] == agent]
        for key in gone:
            del self._sessions[key]
        return len(gone)

    def _begin(self, session: Session, draft: Draft) -> Work:
        """Go back to where the draft begins, and say what is to be evaluated.

        Example: 7 ids known, 6 evaluated, a run of 2 and a token in doubt: 4 tokens are evaluated, and the
        logits after all 4 are wanted: before each of the draft's three tokens, and after the last one.
        """
        del session.ids[draft.position :]
        session.num_evaluated = min(session.num_evaluated, draft.position - 1)
        session.last_draft, session.last_verdict = (draft.epoch, draft.position), None
        ids = [*session.ids, *draft.run_ids]
        if draft.doubt is not None:
            ids.append(draft.doubt.token_id)
        else:
            ids.pop()  # what follows the run's last token is not asked for yet
        return Work(session, draft, ids, session.num_evaluated, num_rows(draft))

    def _touched(self, agent: str, number: int) -> Session | None:
        """The session, made the one last used."""
        session = self._sessions.pop((agent, number), None)
        if session is not None:
            self._sessions[agent, number] = session
        return session

    def _free_sequence(self, busy: set[Session]) -> int | None:
        """A sequence that no session uses; the longest idle session gives way where there is none."""
        if len(self) >= self.max_sessions:
            idle = next((session for session in self if session not in busy), None)
            if idle is None:
                return None
            del self._sessions[idle.agent, idle.number]
            self.num_evicted += 1
        used = {session.sequence for session in self}
        return next(sequence for sequence in range(self.max_sessions) if sequence not in used)


def _largest_id(draft: Draft) -> int:
    """The largest token id that a draft names."""
    ids = [*draft.run_ids] if draft.doubt is None else [*draft.run_ids, *draft.doubt.q_hat.token_ids.tolist()]
    return max(ids, default=0)
