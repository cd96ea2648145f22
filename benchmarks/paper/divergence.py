"""How far the papers' output lies from the target's. In: `p`, `q`, what was judged. Out: losses a token. Pure.

A skipped token costs its rejection probability, as for ours. A token that was asked about costs what the judgement
is biased by: the token is drawn from `q` and judged by what the upload holds of it, so that the result is not
distributed as `p`; its loss is the total variation between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud_broker_worker.verification import rejection_probability
from schemas.distribution import Probabilities


@dataclass(frozen=True, eq=False)
class Judged:
    """How one token came to be: drawn from `q`, and judged by `q_filled` (None: skipped). Both `[vocab]`."""

    q: Probabilities
    q_filled: npt.NDArray[np.float64] | None


def losses(p: Probabilities, ids: Sequence[int], judged: Sequence[Judged]) -> list[float]:
    """The loss of each token; `p` is the target's view before each, `[num_tokens, vocab]`."""
    return [
        rejection_probability(row[token_id], float(how.q[token_id]))
        if how.q_filled is None
        else published_bias(row, how.q, how.q_filled)
        for row, token_id, how in zip(p, ids, judged, strict=True)
    ]


def published_bias(p: Probabilities, q: Probabilities, q_filled: npt.NDArray[np.float64]) -> float:
    """The total variation between `p` and what comes out of `baselines.judge_as_published`.

    Its `q_filled` accepts x with a(x) = min(1, p(x) / q_filled(x)); q(x) a(x) comes out as accepted, and the rest
    of the mass in proportion to max(p - q_filled, 0), or to p where that is empty.
    """
    target = p.astype(np.float64)
    possible = (target > 0).astype(np.float64)  # what an entry of 0 is accepted with
    accepts = np.minimum(1.0, np.divide(target, q_filled, out=possible, where=q_filled > 0))
    accepted = q * accepts
    residual = np.maximum(target - q_filled, 0.0)
    residual = residual if residual.any() else target
    comes_out = accepted + max(0.0, 1.0 - float(accepted.sum())) * residual / residual.sum()
    return float(np.abs(comes_out - target).sum() / 2)
