"""From samples to profile, codebook and report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.calibration.codebooks import Saving, saving, train
from edge_agent.calibration.findings import Given, find_out
from edge_agent.calibration.k_rules import Prices
from edge_agent.calibration.report import render
from schemas.frames import Draft
from schemas.messages import parse_message
from schemas.profile import KRule, Profile
from schemas.sampling import SamplingParameters
from tests.edge_agent.calibration.made_up import texts
from tests.profiles import PAIR

STRETCHES, SAMPLES = texts(24)
GIVEN = Given(
    SamplingParameters(), Prices(0.02, 125.0, 0.02), KRule(name="cost", k=16, least_share=0.02), is_set=False
)


@pytest.fixture(scope="module")
def findings():
    return find_out(SAMPLES, STRETCHES, PAIR, GIVEN)


def test_the_profile_holds_the_cheapest_rule_and_a_codebook_that_pays(findings):
    profile = findings.profile
    assert parse_message(Profile, profile.to_bytes()) == profile
    assert profile.k_rule in [report.rule for report in profile.k_rules]
    assert profile.k == profile.k_rule.k
    assert profile.codebook() is not None
    assert findings.saving is not None
    assert findings.saving.pays
    assert findings.saving.opening[1] < 0.8 * findings.saving.opening[0]


def test_the_figures_are_those_of_the_rule_that_is_chosen(findings):
    assert (findings.columns.weights >= 0).all()
    fixed = Given(GIVEN.sampling, GIVEN.prices, KRule(name="fixed", k=1), is_set=True)
    narrow = find_out(SAMPLES, STRETCHES, PAIR, fixed)
    assert narrow.profile.k_rule == fixed.rule
    assert narrow.profile.mean_beta > findings.profile.mean_beta


def test_the_most_frequent_ids_come_first():
    drafts = [Draft(1, 0, 3, (9, 9, 9, 4), (1, 1, 1, 1), None)] * 8
    trained = train([[5, 5, 5, 6, 7, 8] * 20] * 40, drafts)
    assert trained is not None
    assert trained.ranked_ids[:3] == (9, 5, 4)
    assert trained.codebook().ranks([9, 5, 4]) == [0, 1, 2]


def test_too_little_text_makes_no_codebook():
    assert train([[1, 2, 3]], []) is None


def test_a_codebook_is_held_against_what_it_was_not_trained_on():
    trained = train([list(range(200, 300))] * 40, [])
    assert trained is not None
    known = saving(trained, [list(range(200, 300))], [])
    unknown = saving(trained, [list(range(3000, 2900, -1))], [])
    assert known.opening[1] < 0.2 * known.opening[0]
    assert unknown.opening[1] > 0.9 * unknown.opening[0]
    assert known.draft == (0.0, 0.0)


def test_a_codebook_that_saves_next_to_nothing_does_not_pay():
    assert Saving((300.0, 150.0), (28.0, 28.0)).pays
    assert not Saving((300.0, 299.0), (28.0, 27.9)).pays
    assert not Saving((0.0, 0.0), (28.0, 28.0)).pays


def test_the_report_is_one_page_that_names_all_it_compares_and_loads_nothing(findings):
    page = render(findings)
    assert page.count("<svg") == page.count("</svg>") == 4
    assert all(report.name in page for report in findings.profile.estimators)
    assert all(name in page for name in ("cu-hlm-online", "cu-hlm-offline", "a fixed k", "in use"))
    assert "http" not in page
    assert "<script" not in page


def test_a_pair_whose_name_holds_markup_cannot_bring_it_into_the_report(findings):
    pair = PAIR.model_copy(update={"draft": "<img src=x>"})
    page = render(replace(findings, profile=findings.profile.model_copy(update={"pair": pair})))
    assert "<img" not in page
    assert "&lt;img" in page
