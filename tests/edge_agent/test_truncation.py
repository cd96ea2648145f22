"""Which tokens of a distribution are sent."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from edge_agent.prediction import predict
from edge_agent.settings import AgentSettings
from edge_agent.truncation import ENTRY_BYTES, K_RULES, truncation
from schemas.sampling import SamplingParameters

SHARES = np.array([0.6, 0.3, 0.06, 0.03, 0.01])
PREDICTION = predict(np.log(SHARES).astype(np.float32), SamplingParameters(temperature=1.0))


def _ids(rule: str, k: int = 16, rejection_bytes: float = 50.0, max_left_out: float = 0.02) -> list[int]:
    cut = truncation(rule, k, rejection_bytes=rejection_bytes, max_left_out=max_left_out)
    return list(cut(PREDICTION).token_ids)


def test_a_token_is_sent_where_its_share_of_a_rejection_is_worth_its_bytes():
    assert _ids("cost", rejection_bytes=ENTRY_BYTES / 0.05) == [0, 1, 2]
    assert _ids("cost", rejection_bytes=ENTRY_BYTES / 0.2) == [0, 1]
    assert _ids("cost", k=1, rejection_bytes=1e9) == [0]


def test_a_rejection_that_costs_nothing_leaves_as_many_tokens_as_may_be_and_never_none():
    assert len(_ids("cost", k=2, rejection_bytes=1e-9)) == 2


def test_fixed_sends_the_likeliest_whatever_they_are_worth():
    assert _ids("fixed", k=4, rejection_bytes=1e-9) == [0, 1, 2, 3]


def test_the_online_rule_sends_the_fewest_tokens_that_hold_enough():
    assert _ids("cu-hlm-online", max_left_out=0.5) == [0]
    assert _ids("cu-hlm-online", max_left_out=0.08) == [0, 1, 2]
    assert _ids("cu-hlm-online", max_left_out=0.0) == [0, 1, 2, 3, 4]
    assert _ids("cu-hlm-online", k=2, max_left_out=0.0) == [0, 1]


@pytest.mark.parametrize("rule", K_RULES)
def test_greedy_sessions_send_one_token(rule):
    greedy = predict(np.log(SHARES).astype(np.float32), SamplingParameters(temperature=0))
    cut = truncation(rule, 16, rejection_bytes=125.0, max_left_out=0.02)
    assert list(cut(greedy).token_ids) == [0]


def test_the_settings_offer_every_rule():
    assert get_args(AgentSettings.model_fields["k_rule"].annotation) == K_RULES
