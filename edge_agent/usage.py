"""What an answer was made of. In: its books and round trips. Out: the usage that users and metrics see."""

from __future__ import annotations

import numpy as np

from edge_agent.ledger import Ledger, Origin
from edge_agent.verifier import RoundTrips
from schemas.messages import Usage


def summarise(ledger: Ledger, round_trips: RoundTrips, seconds: float) -> Usage:
    """Count tokens by origin and sum up the audit.

    The divergence is the mean of skip * beta over all tokens but the unverified ones and those skipped
    ones whose audit never came: what is not known is left out, not taken for zero.
    """
    records = ledger.records
    counts = {origin: sum(record.origin is origin for record in records) for origin in Origin}
    betas = [r.beta for r in records if r.origin is Origin.SKIPPED and r.beta is not None]
    num_judged = len(records) - counts[Origin.UNVERIFIED] - counts[Origin.SKIPPED] + len(betas)
    trips_ms = np.array(round_trips.seconds) * 1000
    return Usage(
        prompt_tokens=ledger.num_prompt,
        tokens=len(records),
        skipped=counts[Origin.SKIPPED],
        accepted=counts[Origin.ACCEPTED],
        recovered=counts[Origin.RECOVERED],
        bonus=counts[Origin.BONUS],
        unverified=counts[Origin.UNVERIFIED],
        seconds=seconds,
        round_trip_median_ms=float(np.median(trips_ms)) if len(trips_ms) else None,
        round_trip_p99_ms=float(np.percentile(trips_ms, 99)) if len(trips_ms) else None,
        audited=len(betas),
        divergence=sum(betas) / num_judged if num_judged else None,
    )
