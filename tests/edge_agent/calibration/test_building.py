"""From samples to a profile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.calibration.building import RISKS, build_profile, judge, linear_fit
from edge_agent.calibration.fitting import auroc, skipped_at
from schemas.sampling import SamplingParameters
from tests.profiles import PAIR, RULES, made_up_columns

COLUMNS = made_up_columns()
JUDGED = judge(COLUMNS)
PROFILE = build_profile(COLUMNS, JUDGED, PAIR, SamplingParameters(), RULES)
SCORES = {name: column[COLUMNS.held_out] for name, column in JUDGED.scores.items()}
BETAS = COLUMNS.betas[COLUMNS.held_out]
ONES = np.ones(len(BETAS))


def test_the_default_estimator_is_the_one_with_the_best_auroc():
    best = max(PROFILE.estimators, key=lambda report: report.auroc)
    assert PROFILE.default_estimator == best.name == "learned"
    assert best.auroc == pytest.approx(auroc(SCORES["learned"], BETAS, ONES))


def test_the_learned_estimator_knows_which_token_is_rejected_whatever_the_draft_model_thinks():
    tables = dict(zip(PROFILE.learned.draft_token.keys, PROFILE.learned.draft_token.thousandths, strict=True))
    assert max(tables, key=lambda key: tables[key]) == 7


def test_the_learned_estimator_means_what_it_says():
    scores = SCORES["learned"]
    for part in np.array_split(np.argsort(scores), 4):
        assert scores[part].mean() == pytest.approx(BETAS[part].mean(), abs=0.06)


@pytest.mark.parametrize("report", PROFILE.estimators, ids=lambda report: report.name)
def test_every_threshold_keeps_its_risk_and_skips_what_it_says(report):
    assert tuple(start.risk for start in report.thresholds) == RISKS
    for start in report.thresholds:
        skipped, cost = skipped_at(start.threshold, SCORES[report.name], BETAS, ONES)
        assert skipped == pytest.approx(start.skipped)
        assert cost <= start.risk + 1e-9


def test_nothing_held_out_is_fitted_on():
    changed = made_up_columns()
    changed.betas[changed.held_out] = 1 - changed.betas[changed.held_out]
    profile = build_profile(changed, judge(changed), PAIR, SamplingParameters(), RULES)
    assert (profile.learned, profile.linear) == (PROFILE.learned, PROFILE.linear)


def test_the_papers_line_on_the_papers_pair_gives_the_papers_thresholds():
    scores = np.linspace(0, 1, 50)
    fit = linear_fit(scores, 0.815 * scores - 0.066, np.ones(50))
    assert fit.risk_averse == pytest.approx(0.081, abs=1e-3)
    assert fit.risk_prone == pytest.approx(0.8117, abs=1e-3)


def test_a_line_that_does_not_rise_gives_no_thresholds():
    fit = linear_fit(np.linspace(0, 1, 50), np.linspace(1, 0, 50), np.ones(50))
    assert (fit.risk_averse, fit.risk_prone) == (None, None)


def test_what_does_not_count_moves_nothing():
    """Positions whose token the rule leaves out have the weight 0, whatever stands in their other columns."""
    mute = np.arange(len(COLUMNS.betas)) % 3 == 0
    weights = np.where(mute, 0.0, 1.0)
    changed = replace(COLUMNS, weights=weights, betas=np.where(mute, 0.9, COLUMNS.betas))
    one, other = judge(replace(COLUMNS, weights=weights)), judge(changed)
    assert one.reports == other.reports
    assert one.learned == other.learned
