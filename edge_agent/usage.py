"""What answers were made of. In: their books and round trips. Out: the usage that users and metrics see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_agent.ledger import Ledger, Origin, Record
from edge_agent.verifier import RoundTrips
from schemas.messages import Usage


def summarise(ledger: Ledger, round_trips: RoundTrips, seconds: float) -> Usage:
    """Count tokens by origin and sum up the audit: the divergence is the mean of the known losses."""
    records = ledger.records
    losses = known_losses(records)
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
        divergence=float(losses.mean()) if len(losses) else None,
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

    The divergence is the mean over the judged tokens of both.
    """
    counts = ("prompt_tokens", "tokens", "skipped", "accepted", "recovered", "bonus", "unverified", "audited")
    judged = one.num_judged + other.num_judged
    loss = sum(each.num_judged * (each.divergence or 0.0) for each in (one, other))
    return Usage(
        **{name: getattr(one, name) + getattr(other, name) for name in counts},
        seconds=one.seconds + other.seconds,
        bytes_up=_sum_of_known(one.bytes_up, other.bytes_up),
        bytes_down=_sum_of_known(one.bytes_down, other.bytes_down),
        divergence=loss / judged if judged else None,
    )


def known_losses(records: list[Record]) -> npt.NDArray[np.float64]:
    """skip * beta of each token of which it is known, `[num_known]`; its mean is the divergence.

    Unverified tokens and skipped ones whose audit never came are left out, not taken for zero.
    """
    losses = [
        record.beta if record.origin is Origin.SKIPPED else 0.0
        for record in records
        if record.origin is not Origin.UNVERIFIED
    ]
    return np.array([loss for loss in losses if loss is not None], np.float64)


def _sum_of_known(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
