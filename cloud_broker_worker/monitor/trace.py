"""One agent's answer, put together from its frames. In: openings, drafts, verdicts. Out: tokens with origins. Pure.

The wire tells most of it, not all. A token that comes in a run for the first time was kept without a verdict:
it is taken for skipped, though it may be unverified because nobody could be asked. One that was asked about
and comes back in a run was kept unverified: its verdict was late or lost. Skipped tokens are seen when the
run that holds them is sent, so the text comes in pieces and a little later than on the board.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum

from schemas.audit import decode_betas
from schemas.frames import Draft, Open, Outcome, Resync, Verdict
from schemas.messages import Usage
from schemas.vocabulary import Fingerprint

# Kept for the drill-down; an answer that is longer loses its beginning.
MAX_TOKENS = 2048
MAX_PROMPT_IDS = 512
# An agent has one ask and a few audits under way; the rest was lost.
_MAX_UNDER_WAY = 16


class Origin(Enum):
    """How a token came to be, as far as the wire tells. The last two are the monitor's own."""

    SKIPPED = "skipped"
    ACCEPTED = "accepted"
    RECOVERED = "recovered"
    BONUS = "bonus"
    UNVERIFIED = "unverified"
    IN_DOUBT = "in doubt"  # asked about, no verdict yet
    UNKNOWN = "unknown"  # the frames that told were not heard


@dataclass(frozen=True)
class TracedToken:
    """A token of the answer. `is_audited`: its rejection probability has been told, which may happen twice."""

    token_id: int
    origin: Origin
    is_audited: bool = False


@dataclass(frozen=True)
class _Ask:
    """The token that was asked about last; `place` is its position."""

    place: int
    token_id: int


class Trace:
    """One answer, under way or over. `prompt_ids` are the question's last ones; None where it was not heard."""

    def __init__(self, worker: str, session: int, num_prompt: int) -> None:
        self.worker, self.num_prompt = worker, num_prompt
        self.prompt_ids: tuple[int, ...] | None = None
        self.vocabulary: Fingerprint | None = None
        self.ended = False
        self.usage: Usage | None = None
        self.num_audited = 0
        self.sum_beta = 0.0
        self._tokens: dict[int, TracedToken] = {}  # by position
        self._forgotten: Counter[Origin] = Counter()
        self._terms: tuple[int, int, int] | None = None
        self._session = session
        self._epoch = 0
        self._asked: _Ask | None = None
        self._is_resynced = self._is_closed = False
        self.is_complete = False  # the worker has answered the last draft, which closes the session
        self._under_way: dict[tuple[int, int], Draft] = {}

    @classmethod
    def opened(cls, opening: Open, worker: str) -> Trace:
        """The trace of an answer that begins with this session."""
        trace = cls(worker, opening.session, len(opening.prompt_ids))
        trace.prompt_ids = opening.prompt_ids[-MAX_PROMPT_IDS:]
        trace.vocabulary = opening.vocabulary
        trace._terms = _terms(opening, trace.num_prompt)
        return trace

    @classmethod
    def joined(cls, draft: Draft, worker: str) -> Trace:
        """The trace of an answer whose beginning was not heard; the draft is yet to be entered."""
        return cls(worker, draft.session, draft.position)

    # ------------------------------------------------------------------------------------ what it shows

    @property
    def tokens(self) -> list[tuple[int, TracedToken]]:
        """The answer's tokens with their positions, in order; a gap in the positions was not heard."""
        return sorted(self._tokens.items())

    @property
    def counts(self) -> Counter[Origin]:
        """How many tokens there are of each origin."""
        return self._forgotten + Counter(token.origin for token in self._tokens.values())

    @property
    def num_settled(self) -> int:
        """Tokens that the agent has committed, as far as is known here."""
        return sum(self.counts.values()) - self.counts[Origin.IN_DOUBT]

    @property
    def heard(self) -> Usage:
        """The answer's usage, as far as its frames tell; what they do not tell of counts as nothing."""
        counts = self.counts
        return Usage(
            prompt_tokens=self.num_prompt,
            tokens=self.num_settled,
            skipped=counts[Origin.SKIPPED],
            accepted=counts[Origin.ACCEPTED],
            recovered=counts[Origin.RECOVERED],
            bonus=counts[Origin.BONUS],
            unverified=counts[Origin.UNVERIFIED],
            audited=self.num_audited,
            divergence=self.divergence,
        )

    @property
    def divergence(self) -> float | None:
        """Mean of skip * beta over this answer's judged tokens so far; None before there are any."""
        counts = self.counts
        judged = counts[Origin.ACCEPTED] + counts[Origin.RECOVERED] + counts[Origin.BONUS] + self.num_audited
        return self.sum_beta / judged if judged else None

    # ------------------------------------------------------------------------------------ what it hears

    def reopen(self, opening: Open, worker: str) -> bool:
        """The same answer at another worker, or opened anew at its own. False: it is another answer."""
        if self.ended or self._is_closed or self._terms != _terms(opening, self.num_prompt):
            return False
        self.worker, self._session, self._epoch = worker, opening.session, 0
        self._under_way.clear()
        known = opening.prompt_ids
        start = max(self.num_prompt, len(known) - MAX_TOKENS)
        self._put(start, known[start:], fresh=Origin.UNKNOWN)
        return True

    def takes(self, draft: Draft) -> bool:
        """Whether a draft belongs to this answer."""
        return not self.ended and draft.session == self._session

    def draft(self, draft: Draft) -> None:
        """A run, perhaps with a token in doubt: all of the answer from the draft's position on."""
        if draft.epoch < self._epoch:
            return  # sent before what is known here; late on its way
        if self._asked is not None and draft.position <= self._asked.place and not self._is_resynced:
            self._missed(self._asked)
        self._epoch, self._is_resynced, self._is_closed = draft.epoch, False, draft.final
        self._cut(draft.position + len(draft.run_ids))
        self._put(draft.position, draft.run_ids, fresh=Origin.SKIPPED)
        self._asked = None
        if draft.doubt is not None:
            self._asked = _Ask(draft.end - 1, draft.doubt.token_id)
            self._set(self._asked.place, self._asked.token_id, Origin.IN_DOUBT)
        self._under_way[draft.epoch, draft.position] = draft
        if len(self._under_way) > _MAX_UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]
        self._forget()

    def verdict(self, verdict: Verdict) -> Draft | None:
        """The draft that it answers; None where that was not heard, or does not fit."""
        draft = self._under_way.get((verdict.epoch, verdict.position))
        fits = (
            draft is not None
            and verdict.session == self._session
            and len(verdict.betas) == draft.end - draft.position
            and (verdict.outcome is Outcome.AUDITED) == (draft.doubt is None)
        )
        if draft is None or not fits:
            return None
        del self._under_way[verdict.epoch, verdict.position]
        self.is_complete = draft.final
        self._audit(draft, verdict)
        is_in_time = not self.ended and verdict.epoch == self._epoch
        if is_in_time and draft.doubt is not None and self._asked is not None:
            self._obey(verdict, self._asked)
        return draft

    def resync(self, resync: Resync) -> None:
        """The worker lacks what came before: what follows is told again, and says nothing new of it."""
        if resync.session == self._session and resync.epoch == self._epoch:
            self._is_resynced, self._is_closed = True, False
            self._under_way.clear()

    def end(self) -> None:
        """The answer is over."""
        self.ended = True
        for place, token in list(self._tokens.items()):
            if token.origin is Origin.IN_DOUBT:  # committed, but its verdict was not heard, or never came
                self._set(place, token.token_id, Origin.UNKNOWN)

    def settle(self, usage: Usage) -> None:
        """The agent's own account of this answer, which settles what no frame told."""
        self.usage = usage
        if self.prompt_ids is not None:
            self._settle_last(usage)

    def _settle_last(self, usage: Usage) -> None:
        """No draft came after the last verdict to show what the agent made of it; its counts do."""
        counts = self.counts
        if self._asked is not None and (
            counts[Origin.ACCEPTED] > usage.accepted or counts[Origin.RECOVERED] > usage.recovered
        ):
            self._missed(self._asked)
        elif counts[Origin.BONUS] > usage.bonus and self._tokens:
            last = max(self._tokens)  # a bonus past the end of an answer is not committed
            if self._tokens[last].origin is Origin.BONUS:
                del self._tokens[last]

    # ---------------------------------------------------------------------------------------- how it is

    def _missed(self, ask: _Ask) -> None:
        """The agent goes on from before the token that it had asked about: it did not take the verdict.

        Example: a token at 7 is asked about, accepted with a bonus at 8, and the next draft begins at 5. In
        time, it would have begun at 9. So 7 was kept unverified and 8 was never committed.
        """
        self._cut(ask.place)
        self._set(ask.place, ask.token_id, Origin.UNVERIFIED)

    def _obey(self, verdict: Verdict, ask: _Ask) -> None:
        if verdict.outcome is Outcome.RECOVERED:
            assert verdict.token_id is not None  # the codec has seen to it
            self._set(ask.place, verdict.token_id, Origin.RECOVERED)
        else:
            self._set(ask.place, ask.token_id, Origin.ACCEPTED)
            if verdict.token_id is not None:
                self._set(ask.place + 1, verdict.token_id, Origin.BONUS)

    def _audit(self, draft: Draft, verdict: Verdict) -> None:
        betas = decode_betas(verdict.betas).tolist()
        for offset, beta in enumerate(betas[: len(draft.run_ids)]):
            place = draft.position + offset
            token = self._tokens.get(place)
            if token is not None and token.origin is Origin.SKIPPED and not token.is_audited:
                self._tokens[place] = replace(token, is_audited=True)
                self.num_audited += 1
                self.sum_beta += beta

    def _put(self, start: int, token_ids: tuple[int, ...], *, fresh: Origin) -> None:
        """Tokens that the agent has committed; those that are known keep their origin."""
        for place, token_id in enumerate(token_ids, start):
            known = self._tokens.get(place)
            if known is None or known.token_id != token_id:
                self._set(place, token_id, fresh)
            elif known.origin is Origin.IN_DOUBT:
                self._set(place, token_id, Origin.UNVERIFIED)

    def _set(self, place: int, token_id: int, origin: Origin) -> None:
        self._tokens[place] = TracedToken(token_id, origin)

    def _cut(self, start: int) -> None:
        """Drop the tokens from a position on: the agent has rolled them back."""
        for place in [place for place in self._tokens if place >= start]:
            del self._tokens[place]

    def _forget(self) -> None:
        for place in sorted(self._tokens)[: max(0, len(self._tokens) - MAX_TOKENS)]:
            self._forgotten[self._tokens.pop(place).origin] += 1


def _terms(opening: Open, num_prompt: int) -> tuple[int, int, int]:
    """What stays the same when an answer moves: its seed, its bound, its question."""
    return opening.seed, opening.max_length, hash(opening.prompt_ids[:num_prompt])
