"""The threshold follows the audit: the mean loss stays at the risk, whatever the text does."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.controller import RiskController
from edge_agent.ledger import AuditedToken
from edge_agent.policy import FixedThreshold

NUM_TOKENS = 2000
STREAMS = {
    "sure and right": lambda _rng, _i: (0.05, 0.0),
    "sure and wrong": lambda _rng, _i: (0.05, 1.0),
    "calibrated": lambda rng, _i: (u := rng.beta(0.5, 2), float(rng.random() < u)),
    "underestimated": lambda rng, _i: (u := rng.beta(0.5, 4), min(1.0, 3 * u)),
    "wrong from the middle on": lambda rng, i: (rng.random(), float(i > NUM_TOKENS // 2)),
    "in bursts": lambda rng, i: (rng.random() * 0.3, float(i // 50 % 2)),
    "certain and wrong": lambda _rng, _i: (0.0, 1.0),
    "certain and a little wrong": lambda _rng, _i: (0.0, 0.06),
    "upside down": lambda rng, _i: (u := rng.random(), 1.0 - u),
    "lulled for long, then wrong": lambda _rng, i: (0.0, float(i >= NUM_TOKENS - 300)),
}


def run(controller, stream, delay=1, seed=0, num_tokens=NUM_TOKENS):
    """The mean loss over a stream's tokens; a run waits for its audit until a question, or for `delay` tokens."""
    rng = np.random.default_rng(seed)
    losses, waiting = [], []
    for index in range(num_tokens):
        uncertainty, beta = stream(rng, index)
        skipped = controller.skips(uncertainty)
        losses.append(beta if skipped else 0.0)
        waiting.append(AuditedToken(uncertainty, beta, skipped=skipped))
        if not skipped or len(waiting) == delay:
            controller.learn(waiting)
            waiting = []
    return float(np.mean(losses))


@pytest.mark.parametrize("risk", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("name", STREAMS)
def test_over_two_thousand_tokens_the_loss_is_at_most_the_risk_and_a_little(name, risk):
    assert run(RiskController(risk), STREAMS[name]) <= risk + 0.0055


def test_a_start_that_is_far_too_high_is_made_up_for():
    assert run(RiskController(0.02, start=1.0), STREAMS["sure and wrong"]) <= 0.02 + 0.0055


def test_where_nothing_is_ever_rejected_it_comes_to_skip_almost_all():
    controller = RiskController(0.02)
    run(controller, lambda rng, _i: (rng.random(), 0.0))
    assert controller.threshold == 1.0


def test_risk_0_skips_nothing_and_never_learns_to():
    controller = RiskController(0)
    controller.learn([AuditedToken(0.0, 0.0, skipped=False)] * 100)
    assert not controller.skips(0.0)


@pytest.mark.parametrize("name", STREAMS)
def test_runs_that_are_audited_only_when_they_are_full_are_made_up_for_in_the_end(name):
    # The bound of the module's docstring, with a run of 64 tokens: nothing of a debt is forgiven.
    num_tokens, longest_run, step = 20_000, 64, 0.1
    bound = 0.02 + (1 + step * longest_run) / (step * num_tokens)
    assert run(RiskController(0.02), STREAMS[name], delay=longest_run, num_tokens=num_tokens) <= bound


def test_a_run_that_was_wrong_from_end_to_end_is_paid_back_token_by_token():
    controller = RiskController(0.02, start=0.5)
    controller.learn([AuditedToken(0.0, 1.0, skipped=True)] * 64)
    assert controller.threshold == pytest.approx(0.5 - 0.1 * 64 * 0.98)
    asked = 0
    while not controller.skips(0.0):
        controller.learn([AuditedToken(0.0, 1.0, skipped=False)])
        asked += 1
    assert asked >= 64 / 0.02 - 64 - 0.5 / (0.1 * 0.02)


def test_a_credit_is_never_larger_than_one_token_of_uncertainty():
    controller = RiskController(0.02)
    controller.learn([AuditedToken(0.5, 0.0, skipped=False)] * 100_000)
    assert controller.threshold == 1.0
    controller.learn([AuditedToken(0.5, 1.0, skipped=True)])
    assert controller.threshold == pytest.approx(1 - 0.1 * 0.98)


def test_what_was_asked_about_costs_nothing_whatever_its_verdict():
    controller = RiskController(0.05, start=0.2)
    controller.learn([AuditedToken(0.9, 1.0, skipped=False)])
    assert controller.threshold == pytest.approx(0.2 + 0.1 * 0.05)


def test_the_threshold_itself_is_skipped_and_what_lies_above_is_asked_about():
    controller = RiskController(0.02, start=0.3)
    assert controller.skips(0.3)
    assert not controller.skips(0.3000001)


def test_a_fixed_threshold_learns_nothing_and_below_0_it_skips_nothing():
    fixed = FixedThreshold(0.3)
    fixed.learn([AuditedToken(0.1, 1.0, skipped=True)] * 100)
    assert fixed.threshold == 0.3
    assert fixed.skips(0.3)
    assert not FixedThreshold(-1.0).skips(0.0)
