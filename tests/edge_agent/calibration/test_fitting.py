"""Scores and fits against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.calibration import fitting

ALL_ALIKE = np.ones(4)


def test_auroc_is_one_for_a_perfect_order_half_for_none_and_zero_for_the_reverse():
    betas = np.array([0.0, 0.0, 1.0, 1.0])
    assert fitting.auroc(np.array([0.1, 0.2, 0.3, 0.4]), betas, ALL_ALIKE) == 1.0
    assert fitting.auroc(np.full(4, 0.3), betas, ALL_ALIKE) == 0.5
    assert fitting.auroc(np.array([0.4, 0.3, 0.2, 0.1]), betas, ALL_ALIKE) == 0.0
    assert fitting.auroc(np.array([0.4, 0.3]), np.zeros(2), np.ones(2)) == 0.5


def test_auroc_with_probabilities_is_what_drawn_verdicts_give():
    rng = np.random.default_rng(0)
    scores, betas = rng.random(300), rng.random(300)
    drawn = rng.random((300, 200)) < betas[:, None]
    expected = fitting.auroc(np.repeat(scores, 200), drawn.ravel().astype(float), np.ones(drawn.size))
    assert fitting.auroc(scores, betas, np.ones(300)) == pytest.approx(expected, abs=0.01)


def test_a_threshold_skips_the_surest_tokens_until_they_cost_the_risk():
    scores, betas = np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 0.3])
    assert fitting.threshold_for(0.05, scores, betas, ALL_ALIKE[:3]) == pytest.approx((0.2, 2 / 3))
    assert fitting.threshold_for(0.1, scores, betas, ALL_ALIKE[:3]) == (0.3, 1.0)
    assert fitting.threshold_for(0.05, scores[2:], betas[2:], ALL_ALIKE[:1]) == (-1.0, 0.0)


def test_tokens_of_one_score_are_skipped_together_or_not_at_all():
    scores, betas = np.array([0.1, 0.2, 0.2]), np.array([0.0, 0.0, 1.0])
    assert fitting.threshold_for(0.1, scores, betas, ALL_ALIKE[:3]) == pytest.approx((0.1, 1 / 3))
    assert fitting.skipped_at(0.2, scores, betas, ALL_ALIKE[:3]) == pytest.approx((1.0, 1 / 3))


def test_the_logistic_fit_finds_the_weights_that_made_the_betas():
    features = np.random.default_rng(0).normal(size=(3000, 3))
    betas = fitting.sigmoid(0.5 + features @ np.array([2.0, -1.0, 0.0]))
    assert fitting.logistic(features, betas, np.ones(3000)) == pytest.approx([0.5, 2.0, -1.0, 0.0], abs=0.01)


def test_the_line_is_the_one_that_made_the_betas_and_flat_without_variation():
    scores = np.linspace(0, 1, 20)
    assert fitting.line(scores, 0.8 * scores - 0.1, np.ones(20)) == pytest.approx((0.8, -0.1))
    assert fitting.line(np.full(3, 0.5), np.array([0.0, 0.5, 1.0]), np.ones(3)) == (0.0, 0.5)


def test_a_weight_counts_as_often_as_it_says_in_every_figure():
    rng = np.random.default_rng(1)
    scores, betas, times = rng.random(60), rng.random(60), rng.integers(0, 4, 60)
    often, of_often = np.repeat(scores, times), np.repeat(betas, times)
    counts, ones = times.astype(float), np.ones(times.sum())
    assert fitting.auroc(scores, betas, counts) == pytest.approx(fitting.auroc(often, of_often, ones))
    assert fitting.mean(betas, counts) == pytest.approx(of_often.mean())
    assert fitting.line(scores, betas, counts) == pytest.approx(fitting.line(often, of_often, ones))
    assert fitting.correlation(scores, betas, counts) == pytest.approx(np.corrcoef(often, of_often)[0, 1])
    assert fitting.skipped_at(0.4, scores, betas, counts) == pytest.approx(
        fitting.skipped_at(0.4, often, of_often, ones)
    )
    _, share = fitting.threshold_for(0.1, scores, betas, counts)
    assert share == pytest.approx(fitting.threshold_for(0.1, often, of_often, ones)[1])
    features = rng.normal(size=(60, 2))
    # The ridge grows with the number of rows, so the two are the same but for that.
    assert fitting.logistic(features, betas, counts) == pytest.approx(
        fitting.logistic(np.repeat(features, times, axis=0), of_often, ones), abs=1e-3
    )


def test_nothing_that_counts_has_the_mean_0():
    assert fitting.mean([0.5, 0.7], np.zeros(2)) == 0.0


def test_a_share_of_all_is_one_whatever_the_weights_round_to():
    weights = np.random.default_rng(0).random(1000) + 0.1
    for count in range(1, 1000):
        assert fitting.mean(np.ones(count, np.bool_), weights[:count]) == 1.0
