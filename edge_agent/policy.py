"""Skip or ask. In: a token's uncertainty, and the books of the answer under way. Out: the decision.

`FixedThreshold` stands here; the controller that moves the threshold by the audit has the same methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from edge_agent.ledger import Record

# Skipped tokens wait for company on their way to the audit, at most this many (docs/protocol.md).
MAX_RUN_TOKENS = 64


class Choice(Enum):
    """What to do with a draft token. AWAIT: it may be kept, if the audits under way tell what is expected of them."""

    SKIP = "skip"
    ASK = "ask"
    AWAIT = "await"


class Policy(Protocol):
    """Decides which tokens are asked about."""

    @property
    def threshold(self) -> float:
        """The uncertainty above which a token is asked about, now."""

    @property
    def max_run(self) -> int:
        """How many tokens may wait before they are sent for their audit, now."""

    def follow(self, records: Sequence[Record]) -> None:
        """An answer begins, and these are its books: read, never written, until it ends."""

    def choose(self, uncertainty: float, *, structured: bool = False) -> Choice:
        """What to do with the draft token; `structured`: a program reads the text."""

    def end(self) -> None:
        """The answer is over."""


class FixedThreshold:
    """Skip what is at or under a threshold; below 0 nothing is."""

    max_run = MAX_RUN_TOKENS

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def follow(self, records: Sequence[Record]) -> None:
        """A fixed threshold reads no books."""

    def choose(self, uncertainty: float, *, structured: bool = False) -> Choice:  # noqa: ARG002
        """What to do with the draft token."""
        return Choice.SKIP if uncertainty <= self.threshold else Choice.ASK

    def end(self) -> None:
        """A fixed threshold has nothing to remember."""
