"""The rule for `k` that costs least by what was measured, and what an agent would have sent under each."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.calibration.drafts import Passage, play
from edge_agent.calibration.k_rules import FIXED_KS, Prices, choose_rule, measure, offline_k
from edge_agent.calibration.replay import WIDTHS
from edge_agent.policy import MAX_RUN_TOKENS
from schemas.codec import encode_draft
from schemas.compression import BodyCodec
from schemas.profile import KRule
from tests.edge_agent.calibration.made_up import context, passages, sample

PLAIN = BodyCodec()
PASSAGES = passages(12)
GIVEN = KRule(name="cost", k=16, least_share=0.02)
PRICES = Prices(risk=0.05, rejection_bytes=60.0, max_left_out=0.1)


def test_a_draft_is_about_a_token_in_doubt_and_brings_what_was_skipped_before():
    rng = np.random.default_rng(0)
    samples = [sample(context(rng), rng) for _ in range(6)]
    passage = Passage(0, 10, samples, [0.1, 0.9, 0.2, 0.3, 0.8, 0.1], is_held_out=False)
    played = play([passage, passage], GIVEN, 0.0)
    object.__setattr__(played, "threshold", 0.5)
    first, second, third, fourth = (draft for draft, _ in played.in_doubt())
    assert (first.position, len(first.run_ids), first.end) == (10, 1, 12)
    assert (second.position, len(second.run_ids), second.end) == (12, 2, 15)
    assert (third.position, third.run_ids, third.epoch) == (first.position, first.run_ids, 0)
    assert fourth.doubt is not None
    assert fourth.doubt.token_id == played.outcomes[10].draft.token_id


def test_a_run_stays_within_its_bound():
    rng = np.random.default_rng(0)
    samples = [sample(context(rng), rng) for _ in range(100)]
    played = play([Passage(0, 1, samples, [0.0] * 99 + [1.0], is_held_out=False)], GIVEN, 0.0)
    object.__setattr__(played, "threshold", 0.5)
    ((draft, _),) = played.in_doubt()
    assert len(draft.run_ids) == 99 - MAX_RUN_TOKENS
    assert draft.end == 101


def test_a_report_says_what_the_frames_weigh_and_how_often_they_are_rejected():
    report = measure(KRule(name="fixed", k=2), PASSAGES, PLAIN, PRICES)
    assert report is not None
    played = play(PASSAGES, report.rule, PRICES.risk)
    sizes = [len(encode_draft(draft, PLAIN)) for draft, _ in played.in_doubt()]
    assert min(sizes) < report.frame_bytes < max(sizes)
    assert report.mean_k == 2
    assert report.skipped == pytest.approx(
        np.mean([score <= played.threshold for passage in PASSAGES for score in passage.scores]), abs=0.05
    )
    assert report.cost == pytest.approx((1 - report.skipped) * (report.frame_bytes + 60 * report.rejected))


def test_bytes_grow_and_rejections_shrink_with_k():
    reports = [measure(KRule(name="fixed", k=k), PASSAGES, PLAIN, PRICES) for k in (1, 2, 4, 8)]
    sizes = [report.frame_bytes for report in reports if report]
    rejected = [report.rejected for report in reports if report]
    assert len(sizes) == 4
    assert sizes == sorted(sizes)
    assert rejected == sorted(rejected, reverse=True)


def test_the_dearer_a_rejection_the_more_is_sent():
    chosen = [
        choose_rule(PASSAGES, PLAIN, Prices(0.05, price, 0.1), GIVEN, is_set=False)
        for price in (0.01, 5000.0)
    ]
    cheap, dear = (
        next(report for report in choice.reports if report.rule == choice.chosen) for choice in chosen
    )
    assert cheap.mean_k < dear.mean_k
    assert cheap.frame_bytes < dear.frame_bytes
    assert cheap.rejected > dear.rejected


def test_the_cheapest_share_is_chosen_on_what_the_fits_see_and_reported_on_what_is_held_out():
    choice = choose_rule(PASSAGES, PLAIN, PRICES, GIVEN, is_set=False)
    seen = [passage for passage in PASSAGES if not passage.is_held_out]
    seen_reports = [measure(report.rule, seen, PLAIN, PRICES) for report in choice.reports]
    ours = [report for report in seen_reports if report and report.rule.name == "cost"]
    cheapest = min(ours, key=lambda report: report.cost)
    assert choice.chosen == cheapest.rule
    held_out = [passage for passage in PASSAGES if passage.is_held_out]
    assert choice.reports[3] == measure(choice.reports[3].rule, held_out, PLAIN, PRICES)
    assert {report.rule.k for report in choice.reports if report.rule.name == "fixed"} == set(FIXED_KS)
    assert {report.rule.name for report in choice.reports} == {
        "cost",
        "fixed",
        "cu-hlm-online",
        "cu-hlm-offline",
    }


def test_a_rule_that_is_set_is_followed_and_the_offline_one_finds_its_k():
    rule = KRule(name="fixed", k=7)
    assert choose_rule(PASSAGES, PLAIN, PRICES, rule, is_set=True).chosen == rule
    by_name = KRule(name="cu-hlm-offline", k=16, max_left_out=0.1)
    choice = choose_rule(PASSAGES, PLAIN, PRICES, by_name, is_set=True)
    seen = [passage for passage in PASSAGES if not passage.is_held_out]
    assert choice.chosen.k == offline_k(seen, PRICES)
    assert sum(report.rule.name == "cu-hlm-offline" for report in choice.reports) == 1


def test_the_offline_k_is_the_smallest_whose_mean_is_within_the_bound():
    found = offline_k(PASSAGES, PRICES)
    played = play(PASSAGES, KRule(name="fixed", k=256), PRICES.risk)
    scores = [score for passage in PASSAGES for score in passage.scores]
    samples = [each for passage in PASSAGES for each in passage.samples]
    doubtful = [
        each.left_out for each, score in zip(samples, scores, strict=True) if score > played.threshold
    ]
    means = dict(zip(WIDTHS, np.mean(doubtful, axis=0), strict=True))
    assert means[found] <= 0.1 < means[WIDTHS[WIDTHS.index(found) - 1]]


def test_where_nothing_is_in_doubt_the_given_rule_stays_and_nothing_is_reported():
    choice = choose_rule(PASSAGES, PLAIN, Prices(1.0, 60.0, 0.1), GIVEN, is_set=False)
    assert choice.chosen == GIVEN
    assert choice.reports == ()
