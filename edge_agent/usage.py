"""What an answer was made of. In: its books and round trips. Out: the usage that users and metrics see."""

from __future__ import annotations

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
        divergence=float(losses.mean()) if len(losses) else None,
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
