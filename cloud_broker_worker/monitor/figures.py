"""What answers came to. In: usages of finished answers, origins of one under way. Out: shares and means. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cloud_broker_worker.monitor.trace import Origin
from schemas.messages import Usage


@dataclass(frozen=True)
class Figures:
    """Sums over answers; None where nothing is known. Shares are of all tokens, bytes are a token."""

    tokens: int
    skip_share: float | None
    accept_share: float | None  # of the tokens that were judged
    unverified_share: float | None
    num_judged: int  # tokens that the divergence is a mean over
    divergence: float | None
    bytes_up: float | None
    bytes_down: float | None
    round_trip_median_ms: float | None  # median of the answers' medians
    round_trip_p99_ms: float | None  # the worst of the answers' 99th percentiles


def figures(usages: Sequence[Usage], under_way: Mapping[Origin, int]) -> Figures:
    """Figures over answers. `under_way` counts only for the shares: the rest is not known before the end."""
    skipped = sum(usage.skipped for usage in usages) + under_way.get(Origin.SKIPPED, 0)
    accepted = sum(usage.accepted for usage in usages) + under_way.get(Origin.ACCEPTED, 0)
    recovered = sum(usage.recovered for usage in usages) + under_way.get(Origin.RECOVERED, 0)
    unverified = sum(usage.unverified for usage in usages) + under_way.get(Origin.UNVERIFIED, 0)
    tokens = sum(usage.tokens for usage in usages) + sum(under_way.values())
    audited = [(usage.divergence, usage.num_judged) for usage in usages if usage.divergence is not None]
    judged = sum(count for _, count in audited)
    medians = [usage.round_trip_median_ms for usage in usages if usage.round_trip_median_ms is not None]
    p99s = [usage.round_trip_p99_ms for usage in usages if usage.round_trip_p99_ms is not None]
    return Figures(
        tokens=tokens,
        skip_share=_share(skipped, tokens),
        accept_share=_share(accepted, accepted + recovered),
        unverified_share=_share(unverified, tokens),
        num_judged=judged,
        divergence=sum(mean * count for mean, count in audited) / judged if judged else None,
        bytes_up=_bytes_a_token([(usage.bytes_up, usage.tokens) for usage in usages]),
        bytes_down=_bytes_a_token([(usage.bytes_down, usage.tokens) for usage in usages]),
        round_trip_median_ms=median(medians) if medians else None,
        round_trip_p99_ms=max(p99s, default=None),
    )


def _share(part: int, whole: int) -> float | None:
    return min(1.0, part / whole) if whole else None


def _bytes_a_token(answers: list[tuple[int | None, int]]) -> float | None:
    known = [(size, tokens) for size, tokens in answers if size is not None and tokens]
    return sum(size for size, _ in known) / sum(tokens for _, tokens in known) if known else None
