"""Skip or ask. In: a token's uncertainty, and the audit of what was skipped. Out: the decision.

`FixedThreshold` stands here; a controller that moves the threshold by the audit has the same two methods.
"""

from __future__ import annotations

from typing import Protocol

from edge_agent.ledger import AuditedToken


class Policy(Protocol):
    """Decides which tokens are asked about."""

    @property
    def threshold(self) -> float:
        """The uncertainty above which a token is asked about, now."""

    def skips(self, uncertainty: float) -> bool:
        """Whether the draft token is kept without asking."""

    def learn(self, audited: list[AuditedToken]) -> None:
        """Take in what the audit says of tokens that were judged before."""


class FixedThreshold:
    """Skip what is at or under a threshold; below 0 nothing is."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def skips(self, uncertainty: float) -> bool:
        """Whether the draft token is kept without asking."""
        return uncertainty <= self.threshold

    def learn(self, audited: list[AuditedToken]) -> None:
        """A fixed threshold learns nothing."""
