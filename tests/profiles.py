"""Profiles and samples made up for tests: `beta` follows from a score and from which token it is."""

from __future__ import annotations

import numpy as np

from edge_agent.calibration.building import Columns, build_profile
from edge_agent.learned import PREDICTION_FEATURES, table_keys
from edge_agent.uncertainty import ESTIMATOR_NAMES
from schemas.messages import VocabularyMark
from schemas.profile import Pair, Profile
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
    keys = np.array([table_keys(int(token_id), (1, 2)) for token_id in token_ids])
    return Columns(betas, scores, plain, keys, np.arange(num_positions) % 4 == 0)


def made_up_profile(pair: Pair = PAIR) -> Profile:
    """A profile of that pair."""
    return build_profile(made_up_columns(), pair, SamplingParameters(), 16)[0]
