"""One draw from the widest `q_hat` tells of every narrower one, without bias."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.calibration.replay import WIDTHS, reach, replay, widest
from edge_agent.truncation import truncation
from schemas.profile import KRule
from tests.edge_agent.calibration.made_up import context, sample

RULES = [
    *(KRule(name="fixed", k=k) for k in (1, 2, 4, 16)),
    KRule(name="cost", k=16, least_share=0.08),
    KRule(name="cu-hlm-online", k=256, max_left_out=0.05),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.k}")
def test_the_mean_rejection_of_a_rule_comes_out_whatever_was_drawn(rule):
    rng, truncate = np.random.default_rng(5), truncation(rule)
    differences, chances = [], []
    for _ in range(800):
        given = context(rng)
        outcome = replay(sample(given, rng), truncate)
        sent = outcome.q_hat
        truth = np.maximum(sent.probabilities() - given.p[sent.token_ids], 0).sum()
        differences.append(outcome.chance * outcome.beta - truth)
        chances.append(outcome.chance)
    error = np.std(differences) / np.sqrt(len(differences))
    assert np.mean(differences) == pytest.approx(
        0, abs=4 * error + 0.002
    )  # and what rounding to 256ths costs
    assert np.mean(chances) == pytest.approx(1, abs=4 * np.std(chances) / np.sqrt(len(chances)) + 0.002)


def test_what_a_rule_leaves_out_has_no_chance_and_its_likeliest_token_stands_in():
    rng, seen = np.random.default_rng(1), 0
    truncate = truncation(KRule(name="fixed", k=1))
    for _ in range(200):
        given = sample(context(rng), rng)
        outcome = replay(given, truncate)
        best = given.token_ids[int(np.argmax(given.shares))]
        assert outcome.draft.token_id == best
        assert (outcome.chance > 0) == (given.token_id == best)
        seen += outcome.chance == 0
    assert seen > 20


def test_no_rule_gives_a_token_more_than_its_reach():
    rng = np.random.default_rng(2)
    for _ in range(300):
        given = sample(context(rng), rng)
        limit = reach(np.array(given.shares), np.array(given.token_ids), given.token_id)
        assert max(replay(given, truncation(rule)).draft.weight for rule in RULES) <= 256
        weights = [
            outcome.draft.weight for rule in RULES if (outcome := replay(given, truncation(rule))).chance
        ]
        assert max(weights, default=1) <= limit


def test_the_reach_of_a_token_is_its_weight_beside_those_above_it():
    shares, ids = np.array([0.2, 0.5, 0.3]), np.array([3, 4, 9])
    assert [reach(shares, ids, token_id) for token_id in (4, 9, 3)] == [256, 97, 52]


def test_a_sample_keeps_all_that_its_own_draw_needs():
    rng = np.random.default_rng(3)
    for _ in range(100):
        given = sample(context(rng), rng)
        wide = widest(np.array(given.shares), np.array(given.token_ids, np.int32))
        assert given.weight == wide.weights[wide.token_ids == given.token_id]
        assert len(given.left_out) == len(WIDTHS)
