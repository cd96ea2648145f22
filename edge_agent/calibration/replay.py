"""Samples, and what any rule for `k` makes of them. In: a sample, a rule. Out: what would have been sent, and `beta`.

Samples are drawn from the widest `q_hat` there is and keep the shares of all its tokens, so that any narrower
one can be made from them. A token drawn from the wide one stands for one drawn from the narrow one with the weight
`chance` = narrow / wide (importance sampling): means of `chance * f` over samples are means of `f` under the
rule, without bias. Hardly any chance is far from 1, since a rule leaves out little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.prediction import Prediction
from edge_agent.truncation import Truncate
from schemas.distribution import (
    WEIGHT_SUM,
    DraftToken,
    TokenIds,
    TruncatedDistribution,
    one_hot,
    quantise,
)

# How many tokens of `q` may be looked at together; the tail beyond what gets a weight is only summed up.
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

Shares = npt.NDArray[np.float64]  # [n]

_NO_LOGITS = np.empty(0, np.float32)


@dataclass(frozen=True)
class Sample:
    """One position: the token drawn, what the worker said, what each estimator thought, features, and `q`.

    `p` is the target's probability of the token drawn, or where it is higher the highest weight that any rule
    gives the token: beyond, `beta` is 0. `weight` is what it had where it was drawn.
    """

    token_id: int
    weight: int
    keys: tuple[int, ...]  # as learned.TABLES
    p: float
    scores: tuple[float, ...]  # as ESTIMATOR_NAMES
    features: tuple[float, ...]  # as learned.PREDICTION_FEATURES
    token_ids: tuple[int, ...]  # all that get a weight in the widest q_hat, ascending
    shares: tuple[float, ...]  # q of each
    left_out: tuple[float, ...]  # the probability beyond the likeliest `WIDTHS` tokens


@dataclass(frozen=True, eq=False)
class Replayed:
    """What a rule makes of a sample. `draft` is the token drawn, or the likeliest where the rule leaves that out.

    `chance` is 0 there; otherwise `beta` is the rejection probability of the token drawn.
    """

    q_hat: TruncatedDistribution
    draft: DraftToken
    chance: float
    beta: float


def replay(sample: Sample, truncate: Truncate) -> Replayed:
    """The sample as it would have been under the rule."""
    if len(sample.token_ids) == 1:  # half of all positions, and the same under every rule
        sure = one_hot(sample.token_id)
        return Replayed(sure, _drawn(sure, 0), 1.0, max(0.0, 1.0 - sample.p))
    shares = np.array(sample.shares, np.float32)
    cut = truncate(Prediction(_NO_LOGITS, shares, shares, greedy=False))
    token_ids = np.array(sample.token_ids, np.int32)[cut.token_ids]
    q_hat = TruncatedDistribution(token_ids, cut.weights)
    index = int(np.searchsorted(token_ids, sample.token_id))
    if index == len(token_ids) or token_ids[index] != sample.token_id:
        return Replayed(q_hat, _drawn(q_hat, int(q_hat.weights.argmax())), 0.0, 0.0)
    draft = _drawn(q_hat, index)
    return Replayed(q_hat, draft, draft.weight / sample.weight, max(0.0, 1.0 - sample.p / draft.probability))


def widest(shares: Shares, token_ids: TokenIds) -> TruncatedDistribution:
    """The `q_hat` that samples are drawn from: every token that gets a weight."""
    return quantise(shares, token_ids)


def reach(shares: Shares, token_ids: TokenIds, token_id: int) -> int:
    """The highest weight that any rule gives the token: that in the narrowest `q_hat` which holds it.

    An audit against this weight tells `p` wherever it matters for any rule. Example: shares .5, .3, .2 have the
    reach 256, 96 and 51, and one more each for rounding, up to 256.
    """
    ranked = np.argsort(-shares, kind="stable")
    narrow = ranked[: int(np.flatnonzero(token_ids[ranked] == token_id)[0]) + 1]
    q_hat = quantise(shares[narrow], token_ids[narrow])
    weight = int(q_hat.weights[q_hat.token_ids == token_id].sum())  # 0 where it rounds to nothing
    return min(WEIGHT_SUM, weight + 1)


def _drawn(q_hat: TruncatedDistribution, index: int) -> DraftToken:
    return DraftToken(int(q_hat.token_ids[index]), index, int(q_hat.weights[index]))
