"""Showing two attention heads where to look. In: the tokens of packed dialogues. Out: a target for each token.

Copying takes two heads, one after the other: the first tells each token what stood before it, the second finds
where the present token stood earlier and looks at what followed it there (induction heads, Olsson et al.,
arXiv:2209.11895). Left alone, a small model did not find this within millions of tokens. Told where to look, it
did within a few hundred steps. So for a while one head of each of two layers is drawn towards its targets, by the
cross entropy of its attention weights; the loss on the next token does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.demo.training.prepare import END_ID

Targets = npt.NDArray[np.int64]

# A token without a target; positions count from 0, so that no position is taken for it.
NO_TARGET = -1


@dataclass(frozen=True)
class GuidePlan:
    """Which layers' first heads are guided, how strongly at first, and for which share of a stage."""

    before_layer: int
    induction_layer: int
    strength: float = 0.5
    share: float = 0.35

    def strength_at(self, done: float) -> float:
        """The strength falls in a straight line to 0; `done` is the share of the stage that is behind."""
        return self.strength * max(0.0, 1 - done / self.share)


def guide_targets(
    plan: GuidePlan, token_ids: Sequence[int], next_ids: Sequence[int], lengths: Sequence[int]
) -> dict[int, Targets]:
    """For each guided layer where each token should look, counted from its dialogue's start; `[num_tokens]`.

    Example: the dialogue `B o b C B o` looks before it at `- 0 1 2 3 4`. By induction `B` (position 4) looks at 1,
    since `o` follows it here as it did there. Control tokens have no such target, they stand everywhere.
    """
    before = np.full(len(token_ids), NO_TARGET, np.int64)
    induction = np.full(len(token_ids), NO_TARGET, np.int64)
    start = 0
    for length in lengths:
        last_seen: dict[int, int] = {}
        before[start + 1 : start + length] = np.arange(length - 1)
        for position in range(length):
            token_id = token_ids[start + position]
            earlier = last_seen.get(token_id)
            follows_again = (
                earlier is not None and token_ids[start + earlier + 1] == next_ids[start + position]
            )
            if earlier is not None and follows_again and token_id > END_ID:
                induction[start + position] = earlier + 1
            last_seen[token_id] = position
        start += length
    return {plan.before_layer: before, plan.induction_layer: induction}
