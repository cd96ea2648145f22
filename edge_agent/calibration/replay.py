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
from schemas.distribution import WEIGHT_SUM, DraftToken, TokenIds, TruncatedDistribution, quantise

Shares = npt.NDArray[np.float32]  # [n]

_NO_LOGITS = np.empty(0, np.float32)


@dataclass(frozen=True)
class Sample:
    """One position: the token drawn, what the worker said, what each estimator thought, features, and `q`.

    `p` is the target's probability of the token drawn, or where it is higher the highest weight that any rule
    gives the token: beyond, `beta` is 0.
    """

    token_id: int
    previous_ids: tuple[int, ...]
    p: float
    scores: tuple[float, ...]  # as ESTIMATOR_NAMES
    features: tuple[float, ...]  # as learned.PREDICTION_FEATURES
    token_ids: tuple[int, ...]  # all that get a weight in the widest q_hat, ascending
    shares: tuple[float, ...]  # q of each


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
    shares = np.array(sample.shares, np.float32)
    ids = np.array(sample.token_ids, np.int32)
    cut = truncate(Prediction(_NO_LOGITS, shares, shares, greedy=False))
    q_hat = TruncatedDistribution(ids[cut.token_ids], cut.weights)
    found = np.flatnonzero(q_hat.token_ids == sample.token_id)
    if not len(found):
        index = int(q_hat.weights.argmax())
        return Replayed(q_hat, _drawn(q_hat, index), 0.0, 0.0)
    draft = _drawn(q_hat, int(found[0]))
    wide = widest(shares, ids)
    drawn_at = int(np.flatnonzero(wide.token_ids == sample.token_id)[0])
    chance = draft.weight / int(wide.weights[drawn_at])
    return Replayed(q_hat, draft, chance, max(0.0, 1.0 - sample.p / draft.probability))


def left_out(sample: Sample, k: int) -> float:
    """The probability of all tokens but the `k` likeliest."""
    shares = np.sort(np.array(sample.shares))[::-1]
    return max(0.0, 1.0 - float(shares[:k].sum()))


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
