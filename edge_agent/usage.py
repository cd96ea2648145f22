"""What answers were made of. In: their books and round trips. Out: the usage that users and metrics see."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.ledger import Ledger, Origin, Record
from edge_agent.verifier import RoundTrips
from schemas.messages import RecentFigures, Usage

# The divergence of an agent is that of its last so many tokens: the length that the risk is held over.
RECENT_TOKENS = 2000
_Z_95 = 1.96


def summarise(ledger: Ledger, round_trips: RoundTrips, seconds: float) -> Usage:
    """Count tokens by origin and sum up the audit: the divergence is the mean of the known losses."""
    records = ledger.records
    losses = known_losses(records)
    divergence = mean_divergence(losses)
    counts = {origin: sum(record.origin is origin for record in records) for origin in Origin}
    num_asked = counts[Origin.ACCEPTED] + counts[Origin.RECOVERED] + counts[Origin.BONUS]
    usage = Usage(
        prompt_tokens=ledger.num_prompt,
        tokens=len(records),
        skipped=counts[Origin.SKIPPED],
        accepted=counts[Origin.ACCEPTED],
        recovered=counts[Origin.RECOVERED],
        bonus=counts[Origin.BONUS],
        unverified=counts[Origin.UNVERIFIED],
        seconds=seconds,
        audited=len(losses) - num_asked,
        divergence=None if divergence is None else divergence[0],
        divergence_margin=None if divergence is None else divergence[1],
    )
    return with_round_trips(usage, round_trips.seconds)


def with_round_trips(usage: Usage, seconds: Sequence[float]) -> Usage:
    """The same with median and 99th percentile of these round trips; None where there were none."""
    trips_ms = np.array(seconds) * 1000
    return usage.model_copy(
        update={
            "round_trip_median_ms": float(np.median(trips_ms)) if len(trips_ms) else None,
            "round_trip_p99_ms": float(np.percentile(trips_ms, 99)) if len(trips_ms) else None,
        }
    )


def added(one: Usage, other: Usage) -> Usage:
    """The usage of both together, but for the round trips; what is not known of one is not known of both.

    The divergence is the mean over the judged tokens of both, and its margin that of independent parts.
    """
    counts = ("prompt_tokens", "tokens", "skipped", "accepted", "recovered", "bonus", "unverified", "audited")
    judged = one.num_judged + other.num_judged
    loss = sum(each.num_judged * (each.divergence or 0.0) for each in (one, other))
    margin = math.hypot(*(each.num_judged * (each.divergence_margin or 0.0) for each in (one, other)))
    return Usage(
        **{name: getattr(one, name) + getattr(other, name) for name in counts},
        seconds=one.seconds + other.seconds,
        bytes_up=_sum_of_known(one.bytes_up, other.bytes_up),
        bytes_down=_sum_of_known(one.bytes_down, other.bytes_down),
        divergence=loss / judged if judged else None,
        divergence_margin=margin / judged if judged else None,
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
        count = {origin: sum(record.origin is origin for record in self._records) for origin in Origin}
        divergence = mean_divergence(known_losses(self._records))
        return RecentFigures(
            tokens=len(self._records),
            skip_share=count[Origin.SKIPPED] / num,
            unverified_share=count[Origin.UNVERIFIED] / num,
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
    deviation = float(np.append(losses, 1.0).std())
    return float(losses.mean()), _Z_95 * deviation / math.sqrt(num)


def known_losses(records: Iterable[Record]) -> npt.NDArray[np.float64]:
    """skip * beta of each token of which it is known, `[num_known]`; its mean is the divergence.

    Unverified tokens and skipped ones whose audit never came are left out, not taken for zero.
    """
    losses = [loss for record in records if (loss := _loss(record)) is not None]
    return np.array(losses, np.float64)


def _loss(record: Record) -> float | None:
    if record.origin is Origin.UNVERIFIED:
        return None
    return record.beta if record.origin is Origin.SKIPPED else 0.0


def _sum_of_known(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
