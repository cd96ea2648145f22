"""Which rule for `k` costs least. In: passages of text, what a rejection costs. Out: the rule, and what others cost.

The cost of a draft is its bytes, and `rejection_bytes` if its token is rejected. Both are measured: the bytes on
frames as they would be sent, rejection by the target model's audit. The rule is chosen on what the fits see and
reported on what is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edge_agent.calibration import fitting
from edge_agent.calibration.drafts import Passage, Sent, drafts_over
from edge_agent.calibration.replay import left_out
from edge_agent.truncation import truncation
from schemas.codec import encode_draft
from schemas.compression import BodyCodec
from schemas.distribution import MAX_K
from schemas.profile import KRule, KRuleReport

FIXED_KS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_LEAST_SHARES = (0.005, 0.01, 0.02, 0.04, 0.08)
# Differences between rules are far above the noise of so many drafts, since all rules see the same ones.
_MAX_DRAFTS = 2000


@dataclass(frozen=True)
class RuleChoice:
    """The rule to follow, and reports on it and on all others, from the held-out part."""

    chosen: KRule
    reports: tuple[KRuleReport, ...]
    rejection_bytes: float

    @property
    def report(self) -> KRuleReport | None:
        """That of the rule to follow; None where nothing is in doubt."""
        return next((report for report in self.reports if report.rule == self.chosen), None)


def choose_rule(
    passages: Sequence[Passage],
    bodies: BodyCodec,
    given: KRule,
    *,
    is_set: bool,
    rejection_bytes: float,
    max_left_out: float,
) -> RuleChoice:
    """The rule of the least cost, or the given one where it `is_set`. `max_left_out` is CU-HLM's bound."""
    seen = [passage for passage in passages if not passage.is_held_out]
    held_out = [passage for passage in passages if passage.is_held_out]
    rules = _candidates(seen, given, max_left_out)
    costs = {}
    if not is_set:
        costs = {rule: measure(rule, seen, bodies, rejection_bytes) for rule in rules}
    measured = {rule: report.cost for rule, report in costs.items() if report is not None}
    chosen = min(measured, key=lambda rule: measured[rule]) if measured else given
    if is_set and given.name == "cu-hlm-offline":
        chosen = next(rule for rule in rules if rule.name == given.name and rule != given)
    reports = (measure(rule, held_out, bodies, rejection_bytes) for rule in rules)
    return RuleChoice(chosen, tuple(report for report in reports if report is not None), rejection_bytes)


def measure(
    rule: KRule, passages: Iterable[Passage], bodies: BodyCodec, rejection_bytes: float
) -> KRuleReport | None:
    """What the rule comes to over the tokens in doubt; None where there are none."""
    sent = list(islice(drafts_over(passages, truncation(rule)), _MAX_DRAFTS))
    chances = np.array([each.outcome.chance for each in sent])
    if not chances.sum() > 0:
        return None
    sizes = np.array([len(encode_draft(each.draft, bodies)) for each in sent], np.float64)
    frame_bytes, rejected = fitting.mean(sizes, chances), fitting.mean(_betas(sent), chances)
    return KRuleReport(
        rule=rule,
        mean_k=fitting.mean(np.array([each.outcome.q_hat.k for each in sent], np.float64), chances),
        frame_bytes=frame_bytes,
        rejected=min(1.0, rejected),
        cost=frame_bytes + rejection_bytes * rejected,
    )


def offline_k(passages: Iterable[Passage], max_left_out: float) -> int:
    """The one smallest `k` that leaves out at most that much of the tokens in doubt, on average."""
    doubtful = [
        sample
        for passage in passages
        for sample, asks in zip(passage.samples, passage.in_doubt, strict=True)
        if asks
    ]
    for k in range(1, MAX_K):
        if not doubtful or np.mean([left_out(sample, k) for sample in doubtful]) <= max_left_out:
            return k
    return MAX_K


def _candidates(seen: Sequence[Passage], given: KRule, max_left_out: float) -> list[KRule]:
    """All rules that are tried: the given one, ours with several shares, every fixed `k`, and CU-HLM's two."""
    rules = [
        given,
        *(KRule(name="cost", k=16, least_share=share) for share in _LEAST_SHARES),
        *(KRule(name="fixed", k=k) for k in FIXED_KS),
        KRule(name="cu-hlm-online", k=MAX_K, max_left_out=max_left_out),
        KRule(name="cu-hlm-offline", k=offline_k(seen, max_left_out), max_left_out=max_left_out),
    ]
    return list(dict.fromkeys(rules))


def _betas(sent: Sequence[Sent]) -> fitting.Column:
    return np.array([each.outcome.beta for each in sent])
