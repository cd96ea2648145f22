"""The books of one answer: what is committed, what the worker knows, what is under way. Pure.

In: tokens to commit, frames from the worker. Out: drafts to send, and what each token turned out to be.

Positions count from the prompt's first token. `known` is how far the worker knows the answer, or will once
it has read what was sent; a run is everything from there on. Example: a prompt of 5 tokens, two skipped ones
(positions 5 and 6) and one in doubt: the draft has position 5, a run of two, and ends at 8. Accepted with a
bonus token, `known` becomes 9.

After a missed verdict the worker may hold a recovered or bonus token where the answer holds another one. Until
the worker has answered a draft of the new epoch, which begins before all that, nothing else moves `known`: a
draft that began behind such a token would be judged on a text that nobody has read.

A worker answers a session's drafts in the order of their sending. So a draft that a later one's verdict has overtaken
is taken for lost, and the next run begins with its tokens once more. The last draft of an answer brings all that has
not been answered, for no later one could tell that it was lost.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum

from schemas.audit import decode_betas
from schemas.distribution import WEIGHT_SUM, DraftToken
from schemas.frames import MAX_RUN, Doubt, Draft, Outcome, Verdict

# A session opened anew brings at most this many tokens as a run: half of what a draft may hold, for the answer
# grows before the draft is sent. Only a long outage leaves more; what is older than that stays unaudited.
_MAX_REOPENED = MAX_RUN // 2


class Origin(Enum):
    """How a token came to be committed."""

    SKIPPED = "skipped"
    ACCEPTED = "accepted"
    RECOVERED = "recovered"
    BONUS = "bonus"
    UNVERIFIED = "unverified"


@dataclass
class Record:
    """One committed token. `weight` and `uncertainty` are those of the draft token; None: it was none.

    `beta` is its rejection probability, once the worker has told it.
    """

    token_id: int
    origin: Origin
    weight: int | None = None
    uncertainty: float | None = None
    beta: float | None = None

    @property
    def loss(self) -> float | None:
        """skip * beta; None while its audit has not come, and for what nobody has verified."""
        if self.origin is Origin.UNVERIFIED:
            return None
        return self.beta if self.origin is Origin.SKIPPED else 0.0


@dataclass(frozen=True)
class Settled:
    """A verdict with the draft that it answers; what it tells of tokens skipped before stands in the records."""

    draft: Draft
    verdict: Verdict
    in_time: bool


class Ledger:
    """Books for one answer, over all the sessions that it may need."""

    def __init__(self, prompt_ids: list[int]) -> None:
        self.ids = list(prompt_ids)
        self.records: list[Record] = []
        self.num_prompt = len(prompt_ids)
        self.session = 0
        self.epoch = 0
        self.known = self.num_prompt
        # Whether the worker's text is sure to be a beginning of ours; if not, how far an audit has been sent.
        self._agrees = True
        self._unconfirmed_end = 0
        self._under_way: dict[tuple[int, int], Draft] = {}  # in the order of their sending
        self._overtaken: set[tuple[int, int]] = set()

    @property
    def num_pending(self) -> int:
        """Tokens that no audit has been sent for yet and that the worker does not know."""
        return len(self.ids) - max(self.known, self._unconfirmed_end)

    @property
    def awaits_audit(self) -> bool:
        """Whether anything sent has not been answered yet and still may be."""
        return bool(self._under_way.keys() - self._overtaken)

    def open(self, session: int) -> list[int]:
        """Start a session: the ids to tell the worker at once. Later ones follow as runs, for their audit."""
        unsettled = min([self.known, *(draft.position for draft in self._under_way.values())])
        # A bonus token that the answer had no room for is known to the old worker alone: hence the outer min.
        self.known = min(len(self.ids), max(unsettled, len(self.ids) - _MAX_REOPENED))
        self.session, self.epoch = session, 0
        self._agrees, self._unconfirmed_end = True, 0
        self._under_way.clear()
        self._overtaken.clear()
        return self.ids[: self.known]

    def commit(
        self,
        token_id: int,
        origin: Origin,
        *,
        draft: DraftToken | None = None,
        uncertainty: float | None = None,
    ) -> None:
        """Append a token for good."""
        self.ids.append(token_id)
        self.records.append(Record(token_id, origin, None if draft is None else draft.weight, uncertainty))

    def ask(self, doubt: Doubt) -> Draft:
        """The draft that asks about a token, the run before it included; `known` moves with the verdict."""
        return self._send(doubt, final=False)

    def audit(self, *, final: bool) -> Draft:
        """The draft that brings the run for its audit alone; the worker is taken to know it from now on.

        After a missed verdict it is so only once it is answered. A bonus that came past the end of the answer is
        known to the worker but was never committed: it is rolled back, so that all who listen see the same end.
        """
        end = self.num_prompt + len(self.records)
        if final and self.known > end:
            self.known = end
            self._start_epoch()
        draft = self._send(None, final=final)
        if self._agrees:
            self.known = draft.end
        else:
            self._unconfirmed_end = draft.end
        return draft

    def settle(self, verdict: Verdict) -> Settled | None:
        """Enter a verdict; None where it answers nothing that was sent.

        One of the present epoch moves `known`, and a recovered one the epoch: the caller commits the token.
        One of an older epoch is late and counts for the audit alone.
        """
        draft = self._under_way.get((verdict.epoch, verdict.position))
        if draft is None or not _answers(verdict, draft, self.session):
            return None
        sent_before = itertools.takewhile(lambda other: other is not draft, self._under_way.values())
        self._overtaken |= {(before.epoch, before.position) for before in sent_before}
        del self._under_way[verdict.epoch, verdict.position]
        in_time = draft.doubt is not None and verdict.epoch == self.epoch
        if in_time:
            self.known = draft.end + (verdict.outcome is Outcome.ACCEPTED and verdict.token_id is not None)
        elif verdict.epoch == self.epoch:
            self.known = max(self.known, draft.end)
        if verdict.epoch == self.epoch:
            self._agrees, self._unconfirmed_end = True, 0
            self.epoch += verdict.outcome is Outcome.RECOVERED
        self._enter_betas(draft, verdict)
        self._forget_covered_by(draft)
        return Settled(draft, verdict, in_time=in_time)

    def miss(self) -> None:
        """No verdict came in time: what was asked is no longer waited for, and the next draft starts anew."""
        self._start_epoch()
        self._agrees = False

    def resync(self, known: int) -> bool:
        """The worker knows less than it was taken to. False: not even the prompt, so open a session anew.

        That one starts with all that is settled, whatever this worker has forgotten.
        """
        self._start_epoch()
        if known < self.num_prompt:
            return False
        self.known = min(known, self.known)
        self._under_way = {name: draft for name, draft in self._under_way.items() if draft.end <= known}
        return True

    def _start_epoch(self) -> None:
        self.epoch += 1
        self._unconfirmed_end = 0

    def _send(self, doubt: Doubt | None, *, final: bool) -> Draft:
        if self._unconfirmed_end:  # its draft had this epoch and position for its name
            self._start_epoch()
        again = [
            draft.position
            for name, draft in self._under_way.items()
            if (final or name in self._overtaken) and self._is_unaudited(draft)
        ]
        if again and not self._asks:
            self.known = min(self.known, *again)
            self._overtaken.clear()
            self._start_epoch()
        run = self.records[self.known - self.num_prompt :]
        weights = tuple(WEIGHT_SUM if record.weight is None else record.weight for record in run)
        ids = tuple(record.token_id for record in run)
        draft = Draft(self.session, self.epoch, self.known, ids, weights, doubt, final)
        self._under_way[draft.epoch, draft.position] = draft
        return draft

    def _is_unaudited(self, draft: Draft) -> bool:
        """Whether the audit of any token that it brought is still to come."""
        records = self.records[draft.position - self.num_prompt : draft.end - self.num_prompt]
        return any(record.origin is Origin.SKIPPED and record.loss is None for record in records)

    @property
    def _asks(self) -> bool:
        """Whether a verdict is waited for: a new epoch would make it late."""
        return any(
            draft.doubt is not None and draft.epoch == self.epoch for draft in self._under_way.values()
        )

    def _forget_covered_by(self, settled: Draft) -> None:
        """Wait no more for missed drafts whose tokens came again in the run of one that is settled now."""
        self._under_way = {
            name: draft
            for name, draft in self._under_way.items()
            if draft.epoch >= settled.epoch or draft.position < settled.position or draft.end > settled.end
        }

    def _enter_betas(self, draft: Draft, verdict: Verdict) -> None:
        """Give the run's tokens their betas, each once. A token in doubt has none until it is committed."""
        records = self.records[draft.position - self.num_prompt :]
        betas = decode_betas(verdict.betas).tolist()
        for record, beta in zip(records, betas, strict=False):
            if record.uncertainty is not None and record.beta is None:
                record.beta = beta


def _answers(verdict: Verdict, draft: Draft, session: int) -> bool:
    """Whether a verdict fits the draft of its name: a beta a token, an outcome where there is doubt."""
    about_doubt = verdict.outcome is not Outcome.AUDITED
    return (
        verdict.session == session
        and len(verdict.betas) == draft.end - draft.position
        and about_doubt == (draft.doubt is not None)
    )
