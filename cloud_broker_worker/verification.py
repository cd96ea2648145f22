"""Accept or recover: pure arithmetic. In: the target's logits, a draft, uniform numbers. Out: a judgement.

Accept the draft token d with probability min(1, p[d] / q_hat[d]), else draw from max(p - q_hat, 0)
renormalised: the result is distributed exactly as p (Leviathan et al., arXiv:2211.17192, theorem 1; Chen et
al., arXiv:2302.01318). `q_hat` is what d was drawn from, bit for bit, so truncation and quantisation cost
acceptance but never exactness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.sampling import distribution, draw
from schemas.distribution import WEIGHT_SUM, Probabilities
from schemas.frames import Doubt, Draft, Outcome
from schemas.sampling import SamplingParameters

Rows = npt.NDArray[np.float32]  # [num_rows, vocab]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a draft deserves: see `schemas.frames.Verdict`. `betas` is `[run + doubt]`, in [0, 1]."""

    outcome: Outcome
    token_id: int | None
    betas: npt.NDArray[np.float64]


def num_rows(draft: Draft) -> int:
    """How many rows of logits a draft needs: one for each of its tokens, and one after a token in doubt."""
    return len(draft.run_ids) + (0 if draft.doubt is None else 2)


def judge(
    logits: Rows,
    draft: Draft,
    sampling: SamplingParameters,
    uniforms: Sequence[float] | npt.NDArray[np.float64],
) -> Judgement:
    """Audit the run and give the verdict on the token in doubt.

    `logits` is `[num_rows(draft), shared vocab]`: row i is the target's view before token i of the draft, the
    last one after the token in doubt. `uniforms` are three numbers in [0, 1): to accept, to recover, for the
    bonus token. Raises ModelError where the logits are no numbers.
    """
    betas = [
        rejection_probability(distribution(row, sampling)[token_id], weight / WEIGHT_SUM)
        for row, token_id, weight in zip(logits, draft.run_ids, draft.run_weights, strict=False)
    ]
    if draft.doubt is None:
        return Judgement(Outcome.AUDITED, None, np.array(betas, np.float64))
    p = distribution(logits[-2], sampling)
    doubt = draft.doubt
    betas.append(rejection_probability(p[doubt.token_id], doubt.weight / WEIGHT_SUM))
    audited = np.array(betas, np.float64)
    if uniforms[0] >= betas[-1]:
        return Judgement(Outcome.ACCEPTED, draw(distribution(logits[-1], sampling), uniforms[2]), audited)
    return Judgement(Outcome.RECOVERED, recover(p, doubt, uniforms[1]), audited)


def rejection_probability(p: float, q_hat: float) -> float:
    """`beta` = 1 - min(1, p[d] / q_hat[d])."""
    return max(1.0 - float(p) / q_hat, 0.0)


def recover(p: Probabilities, doubt: Doubt, uniform: float) -> int:
    """A token from max(p - q_hat, 0), renormalised."""
    residual = p.astype(np.float64)
    residual[doubt.q_hat.token_ids] -= doubt.q_hat.probabilities()
    np.maximum(residual, 0.0, out=residual)
    # Only rounding can leave nothing: p and q_hat then agree, and p itself is the right distribution.
    return draw(residual if residual.any() else p, uniform)
