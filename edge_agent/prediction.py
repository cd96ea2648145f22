"""What the draft model says about the next token. In: logits. Out: `q`, `q_hat`, and what judges need.

The costs on a board are whole passes over the vocabulary, so everything here is made once a token: one
softmax, which is also `q` unless top-k, top-p or min-p cut it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from edge_agent.history import History
from runtime.sampling import Indices, Logits, largest, shape, softmax
from schemas.distribution import WEIGHT_SUM, Probabilities, TruncatedDistribution, one_hot, quantise
from schemas.sampling import SamplingParameters

# A quarter of one weight: what lies below gets none, except where the whole distribution is that flat.
LEAST_SHARE = 0.25 / WEIGHT_SUM


@dataclass(frozen=True, eq=False)
class Prediction:
    """The draft model's next-token distribution, `[vocab]` each.

    `tempered` is the plain softmax at the session's temperature, or at 1 for greedy sessions, whose `q` is
    one-hot and would tell a judge nothing. `q` is what the session's sampling parameters leave of it.
    `history` is the text before, for judges that look at it.
    """

    logits: Logits
    tempered: Probabilities
    q: Probabilities
    greedy: bool
    history: History = field(default_factory=History)

    @cached_property
    def likely(self) -> tuple[Indices, Probabilities]:
        """The tokens with at least `LEAST_SHARE` of `tempered`, the likeliest first: `[n]` ids, `[n]` shares.

        There is none where the whole distribution is that flat.
        """
        ids: Indices = np.flatnonzero(self.tempered >= LEAST_SHARE)
        shares = self.tempered[ids]
        order = np.argsort(-shares, kind="stable")
        return ids[order], shares[order]

    def truncated(self, k: int, least_share: float = LEAST_SHARE) -> TruncatedDistribution:
        """`q_hat`: `q` cut to its `k` likeliest tokens of at least `least_share`, and quantised.

        Where no token has that share, the `k` likeliest.
        """
        if self.greedy:
            return one_hot(int(self.q.argmax()))
        token_ids: Indices = np.flatnonzero(self.q >= least_share)
        if not 0 < len(token_ids) <= k:
            token_ids = largest(self.q, k)
        return quantise(self.q[token_ids], token_ids)


def predict(logits: Logits, parameters: SamplingParameters, history: History | None = None) -> Prediction:
    """Turn logits into a prediction, in one pass over the vocabulary where no filter is set."""
    tempered = softmax(logits, 1.0 if parameters.greedy else parameters.temperature)
    q = shape(tempered, parameters)
    return Prediction(logits, tempered, q, parameters.greedy, history or History())
