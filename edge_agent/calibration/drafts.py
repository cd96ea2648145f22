"""The drafts that an agent would have sent over a text. In: passages, a rule, a risk. Out: drafts. Pure.

A position that is not in doubt is skipped and goes into the next draft's run; the text stands in for the verdicts.
Left out are bonus tokens, which spare an agent the position after an accepted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edge_agent.calibration import fitting
from edge_agent.calibration.replay import Replayed, Sample, replay
from edge_agent.policy import MAX_RUN_TOKENS
from edge_agent.truncation import truncation
from schemas.frames import Doubt, Draft
from schemas.profile import KRule

# What a session number, a deadline of two seconds and a rejected token come to in a header.
_SESSION, _DEADLINE_MS, _REJECTED = 100, 2000, 0.5


@dataclass(frozen=True)
class Passage:
    """A stretch of text, samples and uncertainties of its positions, the first being `start` of the session."""

    document: int
    start: int
    samples: Sequence[Sample]
    scores: Sequence[float]
    is_held_out: bool


@dataclass(frozen=True, eq=False)
class Played:
    """Passages under one rule: `outcomes` of all positions in their order, and the threshold that costs the risk."""

    passages: Sequence[Passage]
    outcomes: Sequence[Replayed]
    threshold: float
    skipped: float

    def in_doubt(self) -> list[tuple[Draft, Replayed]]:
        """The drafts about tokens in doubt, and what becomes of each."""
        return list(self._drafts())

    def _drafts(self) -> Iterator[tuple[Draft, Replayed]]:
        outcomes = iter(self.outcomes)
        for passage in self.passages:
            epoch, run = 0, list[Replayed]()
            for offset, (score, outcome) in enumerate(
                zip(passage.scores, islice(outcomes, len(passage.scores)), strict=True)
            ):
                if score <= self.threshold:
                    # At the bound a run is sent for its audit alone.
                    run = [*run, outcome] if len(run) < MAX_RUN_TOKENS else [outcome]
                    continue
                yield _draft(epoch, passage.start + offset - len(run), run, outcome), outcome
                epoch, run = epoch + (outcome.beta > _REJECTED), []


def play(passages: Sequence[Passage], rule: KRule, risk: float) -> Played:
    """What the rule makes of all positions, and which are in doubt at the risk."""
    truncate = truncation(rule)
    outcomes = [replay(sample, truncate) for passage in passages for sample in passage.samples]
    scores = np.array([score for passage in passages for score in passage.scores])
    betas, chances = (np.array([getattr(each, name) for each in outcomes]) for name in ("beta", "chance"))
    threshold, skipped = fitting.threshold_for(risk, scores, betas, chances)
    return Played(passages, outcomes, threshold, skipped)


def _draft(epoch: int, position: int, run: list[Replayed], outcome: Replayed) -> Draft:
    ids = tuple(kept.draft.token_id for kept in run)
    weights = tuple(kept.draft.weight for kept in run)
    doubt = Doubt(outcome.q_hat, outcome.draft.index, _DEADLINE_MS)
    return Draft(_SESSION, epoch, position, ids, weights, doubt)
