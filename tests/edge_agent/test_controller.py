"""The threshold follows the audit: the mean loss stays at the risk, whatever the text does."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.controller import RiskController
from edge_agent.ledger import AuditedToken

NUM_TOKENS = 2000
STREAMS = {
    "sure and right": lambda _rng, _i: (0.05, 0.0),
    "sure and wrong": lambda _rng, _i: (0.05, 1.0),
    "calibrated": lambda rng, _i: (u := rng.beta(0.5, 2), float(rng.random() < u)),
    "underestimated": lambda rng, _i: (u := rng.beta(0.5, 4), min(1.0, 3 * u)),
    "wrong from the middle on": lambda rng, i: (rng.random(), float(i > NUM_TOKENS // 2)),
    "in bursts": lambda rng, i: (rng.random() * 0.3, float(i // 50 % 2)),
}


def run(controller, stream, delay=1, seed=0):
    """The mean loss over the tokens of a stream, when the audit comes `delay` tokens late."""
    rng = np.random.default_rng(seed)
    losses, waiting = [], []
    for index in range(NUM_TOKENS):
        uncertainty, beta = stream(rng, index)
        skipped = controller.skips(uncertainty)
        losses.append(beta if skipped else 0.0)
        waiting.append(AuditedToken(uncertainty, beta, skipped=skipped))
        if len(waiting) == delay:
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
