"""The papers' verification, as the named baseline only. In: what their edge sends. Out: tokens, biased.

HLM and U-HLM (arXiv:2412.12687) upload the whole distribution; CU-HLM (arXiv:2505.11788) uploads its k
likeliest entries, and the worker fills in the missing ones uniformly. Their edge draws the token from its
full distribution all the same, so the token is judged by another distribution than it was drawn from, and
what comes out is not distributed as the target's. `verification` is ours.

An entry costs 8 bits for its probability and 15 for its index among 32,000 tokens: 92,000 bytes for all of
them, 86.25 for 30.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.sampling import draw
from schemas.distribution import Probabilities

PROBABILITY_BITS = 8
INDEX_BITS = 15


def upload_bytes(num_entries: int) -> float:
    """What the papers charge for one upload of so many entries, in bytes; they charge nothing else."""
    return num_entries * (PROBABILITY_BITS + INDEX_BITS) / 8


def fill_uniformly(q: npt.NDArray[np.floating], kept_ids: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """What the worker of CU-HLM takes for q, `[vocab]`: the kept entries, and the rest of the mass spread evenly."""
    num_missing = len(q) - len(kept_ids)
    kept = q[kept_ids].astype(np.float64)
    if num_missing == 0:
        return np.asarray(q, np.float64)
    # float32 entries may sum to a little more than 1.
    filled = np.full(len(q), max(0.0, 1.0 - kept.sum()) / num_missing)
    filled[kept_ids] = kept
    return filled


def judge_as_published(
    p: Probabilities, q_filled: npt.NDArray[np.float64], token_id: int, uniforms: npt.NDArray[np.float64]
) -> int:
    """The token that comes out: the draft token with probability min(1, p/q), else one of max(p - q, 0)."""
    if uniforms[0] * q_filled[token_id] < p[token_id]:
        return token_id
    residual = np.maximum(p - q_filled, 0.0)
    return draw(residual if residual.any() else p, uniforms[1])
