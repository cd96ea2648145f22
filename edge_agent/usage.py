"""What an answer was made of. In: its books and round trips. Out: the usage that users and metrics see."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from edge_agent.ledger import Ledger, Origin, Record
from edge_agent.round_trips import RoundTrips
from schemas.messages import RecentFigures, Usage

# The divergence of an agent is that of its last so many tokens: the length that the risk is held over.
RECENT_TOKENS = 2000
_Z_95 = 1.96
# What is published after each answer is paid for by the byte.
_DIGITS = 5


def summarise(ledger: Ledger, round_trips: RoundTrips, seconds: float) -> Usage:
    """Count tokens by origin and sum up the audit: the divergence is the mean of the known losses."""
    records = ledger.records
    losses = known_losses(records)
    divergence = mean_divergence(losses)
    counts = Counter(record.origin for record in records)
    num_asked = counts[Origin.ACCEPTED] + counts[Origin.RECOVERED] + counts[Origin.BONUS]
    return Usage(
        prompt_tokens=ledger.num_prompt,
        tokens=len(records),
        skipped=counts[Origin.SKIPPED],
        accepted=counts[Origin.ACCEPTED],
        recovered=counts[Origin.RECOVERED],
        bonus=counts[Origin.BONUS],
        unverified=counts[Origin.UNVERIFIED],
        seconds=seconds,
        round_trip_median_ms=round_trips.median_ms,
        round_trip_p99_ms=round_trips.p99_ms,
        audited=len(losses) - num_asked,
        divergence=None if divergence is None else divergence[0],
        divergence_margin=None if divergence is None else divergence[1],
    )


class Recent:
    """The last tokens of an agent, over its answers."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=RECENT_TOKENS)

    def add(self, records: Iterable[Record]) -> None:
        """Count the tokens of a finished answer in."""
        self._records += records

    def figures(self) -> RecentFigures:
        """Shares of all recent tokens, and their divergence."""
        num = max(1, len(self._records))
        count = Counter(record.origin for record in self._records)
        divergence = mean_divergence(known_losses(self._records))
        return RecentFigures(
            tokens=len(self._records),
            skip_share=round(count[Origin.SKIPPED] / num, _DIGITS),
            unverified_share=round(count[Origin.UNVERIFIED] / num, _DIGITS),
            divergence=None if divergence is None else divergence[0],
            divergence_margin=None if divergence is None else divergence[1],
        )


def mean_divergence(losses: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The mean of `[n]` losses and half the width of its 95 % confidence interval; None where there is none.

    The spread is taken as if one more token had been wholly wrong: a handful without any loss proves little, and
    the interval of twenty of them then reaches to 0.1.
    """
    num = len(losses)
    if not num:
        return None
    margin = _Z_95 * float(np.append(losses, 1.0).std()) / math.sqrt(num)
    return round(float(losses.mean()), _DIGITS), round(margin, _DIGITS)


def known_losses(records: Iterable[Record]) -> npt.NDArray[np.float64]:
    """skip * beta of each token of which it is known, `[num_known]`; its mean is the divergence.

    Unverified tokens and skipped ones whose audit never came are left out, not taken for zero.
    """
    losses = [loss for record in records if (loss := record.loss) is not None]
    return np.array(losses, np.float64)
