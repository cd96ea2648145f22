"""How many tokens of `q` are sent. In: a prediction. Out: `q_hat`.

`q_hat` stays exact at any `k`, since the draft token is drawn from it: fewer tokens only cost acceptance.

- `cost`: a token is sent if its share of the probability, times what a rejection costs, is worth its bytes.
  Leaving out a token of share s rejects at most s more often, so the rule compares s * rejection_bytes with
  the bytes of an entry, up to `k` tokens.
- `fixed`: the `k` likeliest, always: CU-HLM's offline rule, whose one `k` is found beforehand.
- `cu-hlm-online`: the smallest `k` that leaves out at most `max_left_out` of the probability: CU-HLM's bound on
  the distortion, token by token (arXiv:2505.11788).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_agent.prediction import LEAST_SHARE, Prediction
from runtime.sampling import largest
from schemas.distribution import MAX_K, TruncatedDistribution, quantise

Truncate = Callable[[Prediction], TruncatedDistribution]

K_RULES = ("cost", "fixed", "cu-hlm-online")
# One byte of weight, and one or two of id: measured at 2.5 on the demo's pair (docs/experiments.md).
ENTRY_BYTES = 2.5


def truncation(rule: str, k: int, *, rejection_bytes: float, max_left_out: float) -> Truncate:
    """The rule of that name; `k` bounds all of them. Raises KeyError for an unknown name."""
    least_share = min(1.0, ENTRY_BYTES / rejection_bytes)
    rules: dict[str, Truncate] = {
        "cost": lambda prediction: prediction.truncated(k, max(LEAST_SHARE, least_share)),
        "fixed": lambda prediction: prediction.truncated(k),
        "cu-hlm-online": lambda prediction: _bounded(prediction, k, max_left_out),
    }
    return rules[rule]


def _bounded(prediction: Prediction, k: int, max_left_out: float) -> TruncatedDistribution:
    """The fewest likeliest tokens, at most `k`, that hold all but `max_left_out` of `q`."""
    if prediction.greedy:
        return prediction.truncated(1)
    ranked = largest(prediction.q, min(k, MAX_K))
    held = np.cumsum(prediction.q[ranked], dtype=np.float64)
    count = int(np.searchsorted(held, 1.0 - max_left_out)) + 1
    return quantise(prediction.q[ranked[:count]], ranked[:count])
