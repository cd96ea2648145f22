"""From which share on a token is worth sending. In: passages of text, prices. Out: the rule, and all costs. Pure.

The cost of a rule is what a token costs on average: the share that is asked about, times a frame's bytes and
`rejection_bytes` for as many as are rejected. All of it is measured: the share at the risk that is set, the bytes
on frames as they would be sent, rejection by the target model's audit. The share of the rule `cost` is chosen on what
the fits see; it and the other rules, which are there to compare with, are reported on what is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.calibration import fitting
from edge_agent.calibration.drafts import Passage, play
from edge_agent.calibration.replay import WIDTHS
from schemas.codec import encode_draft
from schemas.compression import BodyCodec
from schemas.distribution import MAX_K
from schemas.profile import KRule, KRuleReport

FIXED_KS = tuple(width for width in WIDTHS if width <= 32)
_LEAST_SHARES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
_MOST_SENT = 16
# More takes long and tells no more: all rules are compared on the same positions.
_MAX_POSITIONS = 10_000


@dataclass(frozen=True)
class Prices:
    """At which risk tokens are in doubt, what a rejection costs, and what CU-HLM's rules may leave out."""

    risk: float
    rejection_bytes: float
    max_left_out: float


@dataclass(frozen=True)
class RuleChoice:
    """The rule to follow, and reports on it and on all others, from the held-out part."""

    chosen: KRule
    reports: tuple[KRuleReport, ...]
    rejection_bytes: float


def choose_rule(
    passages: Sequence[Passage], bodies: BodyCodec, prices: Prices, given: KRule, *, is_set: bool
) -> RuleChoice:
    """The share of the least cost, or the given rule where it `is_set`: by name alone where it is the offline one."""
    seen = _some([passage for passage in passages if not passage.is_held_out])
    held_out = _some([passage for passage in passages if passage.is_held_out])
    offline = KRule(name="cu-hlm-offline", k=offline_k(seen, prices), max_left_out=prices.max_left_out)
    given = offline if given.name == offline.name else given
    rules = list(dict.fromkeys([given, *_candidates(prices), offline]))
    ours = [] if is_set else [rule for rule in rules if rule.name == "cost"]
    costs = {rule: measure(rule, seen, bodies, prices) for rule in ours}
    measured = {rule: report.cost for rule, report in costs.items() if report is not None}
    chosen = min(measured, key=lambda rule: measured[rule]) if measured else given
    reports = (measure(rule, held_out, bodies, prices) for rule in rules)
    return RuleChoice(
        chosen, tuple(report for report in reports if report is not None), prices.rejection_bytes
    )


def measure(
    rule: KRule, passages: Sequence[Passage], bodies: BodyCodec, prices: Prices
) -> KRuleReport | None:
    """What the rule comes to; None where nothing is in doubt."""
    played = play(passages, rule, prices.risk)
    sent = played.in_doubt()
    chances = np.array([outcome.chance for _, outcome in sent])
    if not chances.sum() > 0:
        return None
    frame_bytes = fitting.mean([len(encode_draft(draft, bodies)) for draft, _ in sent], chances)
    rejected = fitting.mean([outcome.beta for _, outcome in sent], chances)
    return KRuleReport(
        rule=rule,
        skipped=played.skipped,
        mean_k=fitting.mean([outcome.q_hat.k for _, outcome in sent], chances),
        frame_bytes=frame_bytes,
        rejected=rejected,
        cost=(1 - played.skipped) * (frame_bytes + prices.rejection_bytes * rejected),
    )


def offline_k(passages: Sequence[Passage], prices: Prices) -> int:
    """The smallest of `WIDTHS` that leaves out at most `max_left_out` of the tokens in doubt, on average."""
    played = play(passages, KRule(name="fixed", k=MAX_K), prices.risk)
    doubtful = [
        sample.left_out
        for passage in passages
        for sample, score in zip(passage.samples, passage.scores, strict=True)
        if score > played.threshold
    ]
    left_out = np.mean(doubtful, axis=0) if doubtful else np.zeros(len(WIDTHS))  # [widths]
    fitting_widths = [k for k, left in zip(WIDTHS, left_out, strict=True) if left <= prices.max_left_out]
    return min(fitting_widths, default=MAX_K)


def _candidates(prices: Prices) -> list[KRule]:
    """Rules that are tried whatever is set: ours with several shares, every fixed `k`, CU-HLM's online one."""
    return [
        *(KRule(name="cost", k=_MOST_SENT, least_share=share) for share in _LEAST_SHARES),
        *(KRule(name="fixed", k=k) for k in FIXED_KS),
        KRule(name="cu-hlm-online", k=MAX_K, max_left_out=prices.max_left_out),
    ]


def _some(passages: Sequence[Passage]) -> list[Passage]:
    """As many as hold `_MAX_POSITIONS`, evenly spread."""
    num_positions = sum(len(passage.samples) for passage in passages)
    step = max(1, round(num_positions / _MAX_POSITIONS))
    return list(passages[::step])
