"""`q_hat`: a truncated distribution in exact integers. In: `q`. Out: what the wire carries, bit for bit.

The edge draws the draft token from `q_hat` as the worker will decode it, which is what makes verification
exact (Leviathan et al., arXiv:2211.17192, with the quantised distribution as the draft's own).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import ModelError

Probabilities = npt.NDArray[np.float32]  # [vocab], sums to 1
TokenIds = npt.NDArray[np.int32]

# Weights are 256ths, so that a weight, and the draft token's own probability, is one byte without loss.
# What finer weights would buy is measured in docs/experiments.md.
WEIGHT_SUM = 256
MAX_K = WEIGHT_SUM  # every weight is at least 1


@dataclass(frozen=True, eq=False)
class TruncatedDistribution:
    """`q_hat`: up to 256 tokens, each with a weight of at least 1; the weights sum to 256."""

    token_ids: TokenIds  # [k], ascending
    weights: npt.NDArray[np.uint16]  # [k]

    @property
    def k(self) -> int:
        """How many tokens it holds."""
        return len(self.token_ids)

    def draw(self, rng: np.random.Generator) -> DraftToken:
        """Draw the draft token, exactly by weight."""
        if self.k == 1:
            return DraftToken(int(self.token_ids[0]), 0, WEIGHT_SUM)
        index = int(np.searchsorted(np.cumsum(self.weights), rng.integers(WEIGHT_SUM), side="right"))
        return DraftToken(int(self.token_ids[index]), index, int(self.weights[index]))

    def probabilities(self) -> npt.NDArray[np.float64]:
        """`q_hat` of each of its tokens, `[k]`."""
        return self.weights / WEIGHT_SUM

    def same_as(self, other: TruncatedDistribution) -> bool:
        """Whether both hold the same tokens with the same weights."""
        return np.array_equal(self.token_ids, other.token_ids) and np.array_equal(self.weights, other.weights)


@dataclass(frozen=True)
class DraftToken:
    """A token drawn from a `q_hat`: its id, where in `q_hat` it stands, and its weight in 256ths."""

    token_id: int
    index: int
    weight: int

    @property
    def probability(self) -> float:
        """`q_hat[d]`."""
        return self.weight / WEIGHT_SUM


def quantise(
    probabilities: npt.NDArray[np.floating], token_ids: npt.NDArray[np.integer]
) -> TruncatedDistribution:
    """Weights for the given tokens in proportion to their probabilities (both `[n]`, any order, n >= 1).

    By largest remainder: floors first, then what is missing goes to the largest fractions. Tokens whose
    weight comes out as 0 are left out, so the result may hold fewer than n.
    Example: probabilities 0.5, 0.3, 0.0005 become the shares 159.9, 95.9, 0.16 of 256, so 160, 96 and none.
    They need not sum to 1. Raises ModelError where they are no distribution: not finite, negative, all zero.
    """
    shares = np.array(probabilities, np.float64)
    largest = shares.max(initial=0.0)
    if not (0 < largest < np.inf and shares.min() >= 0):
        raise ModelError("the draft model's probabilities are no distribution: not finite, negative or all 0")
    shares /= largest  # first, so that neither a tiny nor a huge sum leaves the range of floats
    shares *= WEIGHT_SUM / float(shares.sum())
    weights = np.floor(shares).astype(np.int64)
    missing = WEIGHT_SUM - int(weights.sum())
    if missing > 0:
        weights[np.argsort(weights - shares, kind="stable")[:missing]] += 1
    kept = np.flatnonzero(weights)
    order = kept[np.argsort(token_ids[kept])]
    return TruncatedDistribution(token_ids[order].astype(np.int32), weights[order].astype(np.uint16))


def one_hot(token_id: int) -> TruncatedDistribution:
    """`q_hat` of a token that is certain; it costs no weights on the wire."""
    return TruncatedDistribution(np.array([token_id], np.int32), np.array([WEIGHT_SUM], np.uint16))
