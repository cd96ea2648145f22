"""Which tokens of a distribution are sent."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edge_agent.prediction import predict
from edge_agent.settings import AgentSettings
from edge_agent.truncation import ENTRY_BYTES, truncation
from schemas.profile import KRule, KRuleName
from schemas.sampling import SamplingParameters
from tests.profiles import made_up_profile

SHARES = np.array([0.6, 0.3, 0.06, 0.03, 0.01])
PREDICTION = predict(np.log(SHARES).astype(np.float32), SamplingParameters(temperature=1.0))


def _ids(name: KRuleName, k: int = 16, least_share: float = 0.0, max_left_out: float = 0.02) -> list[int]:
    cut = truncation(KRule(name=name, k=k, least_share=least_share, max_left_out=max_left_out))
    return list(cut(PREDICTION).token_ids)


def test_a_token_is_sent_where_its_share_of_a_rejection_is_worth_its_bytes():
    assert _ids("cost", least_share=0.05) == [0, 1, 2]
    assert _ids("cost", least_share=0.2) == [0, 1]
    assert _ids("cost", k=1) == [0]


def test_a_rejection_that_costs_nothing_leaves_as_many_tokens_as_may_be_and_never_none():
    assert len(_ids("cost", k=2, least_share=1.0)) == 2


@pytest.mark.parametrize("name", ["fixed", "cu-hlm-offline"])
def test_a_rule_of_one_k_sends_the_likeliest_whatever_they_are_worth(name):
    assert _ids(name, k=4, least_share=1.0) == [0, 1, 2, 3]


def test_the_online_rule_sends_the_fewest_tokens_that_hold_enough():
    assert _ids("cu-hlm-online", max_left_out=0.5) == [0]
    assert _ids("cu-hlm-online", max_left_out=0.08) == [0, 1, 2]
    assert _ids("cu-hlm-online", max_left_out=0.0) == [0, 1, 2, 3, 4]
    assert _ids("cu-hlm-online", k=2, max_left_out=0.0) == [0, 1]


@pytest.mark.parametrize("name", get_args(KRuleName))
def test_greedy_sessions_send_one_token(name):
    greedy = predict(np.log(SHARES).astype(np.float32), SamplingParameters(temperature=0))
    cut = truncation(KRule(name=name, k=16, least_share=0.02, max_left_out=0.02))
    assert list(cut(greedy).token_ids) == [0]


def test_the_settings_price_a_rejection_in_bytes_of_entries():
    settings = AgentSettings(model=Path("m"), rejection_bytes=ENTRY_BYTES / 0.05)
    assert settings.rule() == KRule(name="cost", k=16, least_share=0.05)
    assert AgentSettings(model=Path("m"), rejection_bytes=0.1).rule().least_share == 1.0


def test_the_profiles_rule_is_followed_unless_one_is_set():
    profile = made_up_profile()
    assert AgentSettings(model=Path("m"), risk=0.1).rule(profile) == profile.k_rule
    assert AgentSettings(model=Path("m"), k=3).rule(profile) == KRule(name="cost", k=3, least_share=0.02)
    assert AgentSettings(model=Path("m"), k_rule="fixed").rule(profile) == KRule(name="fixed", k=16)
    online = AgentSettings(model=Path("m"), k_rule="cu-hlm-online", max_left_out=0.1).rule(profile)
    assert online == KRule(name="cu-hlm-online", k=16, max_left_out=0.1)


def test_the_offline_rule_takes_its_one_k_from_the_profile_unless_one_is_set():
    profile, name = made_up_profile(), "cu-hlm-offline"
    found = profile.offline_k()
    assert found is not None
    assert AgentSettings(model=Path("m"), k_rule=name).rule(profile).k == found
    assert AgentSettings(model=Path("m"), k_rule=name, k=5).rule(profile).k == 5
    assert AgentSettings(model=Path("m"), k_rule=name).rule().k == 16
