"""What an answer cost and what it was worth. In: answers. Out: sums, and the figures that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class TargetCounts:
    """The target model's work beside reading prompts, which is the same for all: passes, and tokens evaluated."""

    passes: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Produced:
    """One answer. `losses` has skip * beta of each token of which it is known; see `divergence`.

    `num_sent` tokens were asked about, `num_free` came from the target unasked (bonus tokens).
    """

    prompt_ids: list[int]
    ids: list[int]
    num_skipped: int
    num_sent: int
    num_free: int
    num_unverified: int
    losses: list[float]
    seconds: float
    bytes_up: int
    bytes_down: int


@dataclass
class Sums:
    """Sums over the answers of a cell."""

    answers: int = 0
    right: int = 0
    tokens: int = 0
    skipped: int = 0
    sent: int = 0
    free: int = 0
    unverified: int = 0
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    payload_up: int = 0  # of the messages that ask, MQTT's own bytes and prompts left out
    target_passes: int = 0  # without those over prompts
    target_tokens: int = 0
    loss: float = 0.0
    num_losses: int = 0

    def add(self, produced: Produced, *, is_right: bool) -> None:
        """Count one answer in."""
        self.answers += 1
        self.right += is_right
        self.tokens += len(produced.ids)
        self.skipped += produced.num_skipped
        self.sent += produced.num_sent
        self.free += produced.num_free
        self.unverified += produced.num_unverified
        self.seconds += produced.seconds
        self.bytes_up += produced.bytes_up
        self.bytes_down += produced.bytes_down
        self.loss += sum(produced.losses)
        self.num_losses += len(produced.losses)

    @property
    def accuracy(self) -> float:
        """The share of the calls that are right."""
        return self.right / self.answers

    @property
    def tokens_per_s(self) -> float:
        """All tokens over all wall time."""
        return self.tokens / self.seconds

    @property
    def divergence(self) -> float | None:
        """The mean of skip * beta a token; None where nothing is known."""
        return self.loss / self.num_losses if self.num_losses else None

    def per_token(self, name: str) -> float:
        """One of the sums over the number of tokens."""
        return float(getattr(self, name)) / self.tokens


SUM_NAMES = tuple(field.name for field in fields(Sums))
