"""Profiles and samples made up for tests: `beta` follows from a score and from which token it is."""

from __future__ import annotations

import numpy as np

from edge_agent.calibration.building import Columns, build_profile, judge
from edge_agent.calibration.k_rules import RuleChoice
from edge_agent.learned import PREDICTION_FEATURES, TABLES
from edge_agent.uncertainty import ESTIMATOR_NAMES
from schemas.messages import VocabularyMark
from schemas.profile import KRule, KRuleReport, Pair, Profile
from schemas.sampling import SamplingParameters

MARK = VocabularyMark(num_tokens=4096, digest="ab" * 16)
PAIR = Pair(
    draft="draft", draft_digest="01" * 16, draft_vocabulary=MARK, target="target", target_vocabulary=MARK
)


def made_up_columns(num_positions: int = 4000, seed: int = 0) -> Columns:
    """Token 7 is always rejected, all others as often as the first feature says; scores know the feature."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(size=(num_positions, len(PREDICTION_FEATURES)))
    token_ids = rng.integers(5, 10, num_positions)
    betas = np.where(token_ids == 7, 1.0, 1 / (1 + np.exp(plain[:, 0] * 2 + 2)))
    scores = np.column_stack([1 / (1 + np.exp(plain[:, 0]))] * len(ESTIMATOR_NAMES))
    keys = np.column_stack([token_ids, *np.tile(np.arange(1, len(TABLES)), (num_positions, 1)).T])
    return Columns(betas, np.ones(num_positions), scores, plain, keys, np.arange(num_positions) % 4 == 0)


COST, OFFLINE = (
    KRule(name="cost", k=12, least_share=0.08),
    KRule(name="cu-hlm-offline", k=24, max_left_out=0.02),
)
RULES = RuleChoice(
    COST,
    tuple(
        KRuleReport(rule=rule, skipped=0.6, mean_k=k, frame_bytes=k + 14, rejected=0.5, cost=0.4 * (k + 76.5))
        for rule, k in ((COST, 2.5), (KRule(name="fixed", k=4), 3.9), (OFFLINE, 14.0))
    ),
    125.0,
)


def made_up_profile(pair: Pair = PAIR) -> Profile:
    """A profile of that pair."""
    columns = made_up_columns()
    return build_profile(columns, judge(columns), pair, SamplingParameters(), RULES)
