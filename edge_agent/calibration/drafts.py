"""The drafts that an agent would have sent over a text. In: samples, which are in doubt, a rule. Out: drafts. Pure.

A position that is not in doubt is skipped and goes into the next draft's run; the text stands in for the verdicts.
Left out are bonus tokens, which spare an agent the position after an accepted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edge_agent.answer import MAX_RUN_TOKENS
from edge_agent.calibration.replay import Replayed, Sample, replay
from edge_agent.truncation import Truncate
from schemas.frames import Doubt, Draft

# What a session number, a deadline of two seconds and a rejected token come to in a header.
_SESSION, _DEADLINE_MS, _REJECTED = 100, 2000, 0.5


@dataclass(frozen=True)
class Passage:
    """A stretch of text with its samples: one a position, from position `start` of the session on."""

    document: int
    start: int
    samples: Sequence[Sample]
    in_doubt: Sequence[bool]
    is_held_out: bool


@dataclass(frozen=True, eq=False)
class Sent:
    """A draft, and what became of its token in doubt."""

    draft: Draft
    outcome: Replayed


def drafts_over(passages: Iterable[Passage], truncate: Truncate) -> Iterator[Sent]:
    """The drafts about tokens in doubt, in the order of the text."""
    for passage in passages:
        epoch, run = 0, list[Replayed]()
        for offset, (sample, asks) in enumerate(zip(passage.samples, passage.in_doubt, strict=True)):
            outcome = replay(sample, truncate)
            if not asks:
                # At the bound a run is sent for its audit alone.
                run = [*run, outcome] if len(run) < MAX_RUN_TOKENS else [outcome]
                continue
            yield Sent(_draft(epoch, passage.start + offset - len(run), run, outcome), outcome)
            epoch, run = epoch + (outcome.beta > _REJECTED), []


def _draft(epoch: int, position: int, run: list[Replayed], outcome: Replayed) -> Draft:
    ids = tuple(kept.draft.token_id for kept in run)
    weights = tuple(kept.draft.weight for kept in run)
    doubt = Doubt(outcome.q_hat, outcome.draft.index, _DEADLINE_MS)
    return Draft(_SESSION, epoch, position, ids, weights, doubt)
