"""How many tokens of `q` are sent. In: a prediction. Out: `q_hat`.

`q_hat` stays exact at any `k`, since the draft token is drawn from it: fewer tokens only cost acceptance.

- `cost`: a token is sent if its share of the probability, times what a rejection costs, is worth its bytes.
  Leaving out a token of share s rejects at most s more often, so the rule sends what has at least the share
  `ENTRY_BYTES` / `rejection_bytes`, up to `k` tokens. Calibration measures which share costs least.
- `fixed`: the `k` likeliest, always.
- `cu-hlm-online`: the smallest `k` that leaves out at most `max_left_out` of the probability: CU-HLM's bound on
  the distortion, token by token (arXiv:2505.11788).
- `cu-hlm-offline`: the same bound on average over a calibration text: one `k`, found beforehand, for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_agent.prediction import LEAST_SHARE, Prediction
from runtime.sampling import largest
from schemas.distribution import MAX_K, TruncatedDistribution, quantise
from schemas.profile import KRule, KRuleName

Truncate = Callable[[Prediction], TruncatedDistribution]

# One byte of weight, and one or two of id: measured at 2.5 on the demo's pair (docs/experiments.md).
ENTRY_BYTES = 2.5


def truncation(rule: KRule) -> Truncate:
    """The rule at work; its `k` bounds all of them."""
    rules: dict[KRuleName, Truncate] = {
        "cost": lambda prediction: prediction.truncated(rule.k, max(LEAST_SHARE, rule.least_share)),
        "fixed": lambda prediction: prediction.truncated(rule.k),
        "cu-hlm-online": lambda prediction: _bounded(prediction, rule.k, rule.max_left_out),
        "cu-hlm-offline": lambda prediction: prediction.truncated(rule.k),
    }
    return rules[rule.name]


def _bounded(prediction: Prediction, k: int, max_left_out: float) -> TruncatedDistribution:
    """The fewest likeliest tokens, at most `k`, that hold all but `max_left_out` of `q`."""
    if prediction.greedy:
        return prediction.truncated(1)
    ranked = largest(prediction.q, min(k, MAX_K))
    held = np.cumsum(prediction.q[ranked], dtype=np.float64)
    count = int(np.searchsorted(held, 1.0 - max_left_out)) + 1
    return quantise(prediction.q[ranked[:count]], ranked[:count])
