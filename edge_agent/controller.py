"""Holds the divergence at the risk the user set. In: the audit. Out: a threshold that moves. Pure.

Adaptive conformal inference (Gibbs and Candès, arXiv:2106.00170): after each token the threshold moves by
`step * (risk - loss)`, where the loss is `beta` for a skipped token and 0 for one that was asked about.
Whatever the text and the models, the mean loss over T tokens is then at most
`risk + (1 + step * D) / (step * T)`, where D is how many tokens are skipped at most before their audit comes:
the threshold, once under 0, skips nothing. It has no lower bound, since that would forgive a debt: a whole run
may turn out wrong at once, and is then made up for token by token.
"""

from __future__ import annotations

from edge_agent.ledger import AuditedToken

# Larger steps hold the risk over shorter texts, smaller ones waste less by swinging: over 2,000 tokens this
# one allows 0.0055 above the risk in the worst case if each audit comes at once, 0.037 if runs of 64 tokens
# are wrong from end to end, and far less in practice.
_STEP = 0.1
# The first tokens of an agent that knows nothing yet: skip only what is all but certain.
DEFAULT_START = 0.02


class RiskController:
    """A policy whose threshold follows the audited loss; risk 0 skips nothing."""

    def __init__(self, risk: float, start: float = DEFAULT_START) -> None:
        self.risk = risk
        self.threshold = -1.0 if risk == 0 else start

    def skips(self, uncertainty: float) -> bool:
        """Whether the draft token is kept without asking."""
        return uncertainty <= self.threshold

    def learn(self, audited: list[AuditedToken]) -> None:
        """Move the threshold by what each audited token turned out to cost."""
        if self.risk == 0:
            return
        for token in audited:
            loss = token.beta if token.skipped else 0.0
            self.threshold = min(1.0, self.threshold + _STEP * (self.risk - loss))
