"""The learned estimator: `u` is an estimate of `beta` itself. In: a prediction, the draft token. Out: `u`.

A logistic model over what the prediction has at hand, over whether the draft token is a copy of what stood before,
and over which tokens these are: the draft token and the one before it, each alone and both together, the two before
it together with it, and the draft token together with its likeliest alternative. Its weights come with the pair's
profile. Beside the prediction it takes one comparison over the vocabulary; all else happens among the likely tokens.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt

from edge_agent.history import MAX_CONTEXT
from edge_agent.prediction import Prediction
from schemas.errors import ConfigurationError
from schemas.profile import LearnedModel, ResidualTable

_OF_THE_PREDICTION = (
    "logit q[d]",
    "logit best",
    "log second",
    "log third",
    "entropy",
    "log breadth",
    "d is best",
    "(logit q[d])^2",
    "logit q[d] if best",
    "(logit best)^2",
    "logit q[d] * log breadth",
)
# By how many tokens repeat: whether they stood before, and how often this token then followed.
_COPYING = tuple(
    name
    for length in range(1, MAX_CONTEXT + 1)
    for name in (f"{length} repeat", f"{length} repeat, share followed by d")
)
PREDICTION_FEATURES = (
    *_OF_THE_PREDICTION,
    *_COPYING,
    *(f"{name} * logit q[d]" for name in _COPYING),
)
# Residuals by which tokens these are; each stage is fitted on what the ones before it leave.
TABLE_STAGES = (("draft_token", "previous_token"), ("pair", "alternative"), ("triple",))
TABLES = tuple(table for stage in TABLE_STAGES for table in stage)
TOKEN_FEATURES = (
    *TABLES,
    *(f"{table} * doubt" for table in TABLES),
    *(f"{table} * logit q[d]" for table in TABLES),
)
FEATURES = PREDICTION_FEATURES + TOKEN_FEATURES

# Logarithms of probabilities are taken this far from 0 and 1: beyond, float32 sums say nothing more.
_EPSILON = 1e-4

Features = npt.NDArray[np.float64]  # [features]


def prediction_features(prediction: Prediction, token_id: int) -> Features:
    """`[23]`, as `PREDICTION_FEATURES` names them.

    Those of the prediction are taken from the tokens that would get a weight in `q_hat`.
    """
    head = prediction.likely[1].astype(np.float64)
    best, second, third = (float(head[rank]) if len(head) > rank else 0.0 for rank in range(3))
    mass = float(prediction.tempered[token_id])
    entropy = -float(head @ np.log(head)) if len(head) else math.log(len(prediction.tempered))
    own, top, breadth = _logit(mass), _logit(best), math.log1p(len(head))
    is_best = float(mass >= best)
    of_the_prediction = np.array(
        [
            own,
            top,
            math.log(second + _EPSILON),
            math.log(third + _EPSILON),
            entropy,
            breadth,
            is_best,
            own * own,
            own * is_best,
            top * top,
            own * breadth,
        ]
    )
    copying = _copying(prediction.history.copied(token_id))
    return np.concatenate([of_the_prediction, copying, copying * own])


def _copying(shares: list[float | None]) -> Features:
    """`[6]`, as `_COPYING` names them."""
    return np.array([value for share in shares for value in (share is not None, share or 0.0)], np.float64)


def table_keys(prediction: Prediction, token_id: int) -> tuple[int, ...]:
    """The keys to look up in `TABLES`, `[5]`: an id, or the CRC-32 of several. 0 stands for what no text has.

    The alternative is the likeliest token but the draft token, or where none other is likely the draft token itself.
    """
    one_before, before = (0, 0, *prediction.history.last(2))[-2:]
    others = (other for other in prediction.likely[0][:2].tolist() if other != token_id)
    alternative = next(others, token_id)
    return (
        token_id,
        before,
        _joint_key(before, token_id),
        _joint_key(token_id, alternative),
        _joint_key(one_before, before, token_id),
    )


def _joint_key(*token_ids: int) -> int:
    """Joint keys collide once in a million lookups of a full table, and cost nothing but one odd residual then."""
    return zlib.crc32(np.array(token_ids, "<u4").tobytes())


def token_features(plain: Features, residuals: Features) -> Features:
    """`[..., 15]`, as `TOKEN_FEATURES` names them, from `[..., 23]` features and `[..., 5]` residuals.

    "Doubt" is the standard deviation of "it is the likeliest token", sqrt(p (1 - p)): identity matters where
    the draft model hesitates.
    """
    own, top = plain[..., 0:1], 1.0 / (1.0 + np.exp(-plain[..., 1:2]))
    doubt = np.sqrt(top * (1.0 - top))
    return np.concatenate([residuals, residuals * doubt, residuals * own], axis=-1)


def why_unusable(model: LearnedModel) -> str | None:
    """Why this version of Hunch cannot judge by what was learned; None where it can."""
    if model.features != FEATURES:
        return "the profile's learned estimator is of another version of Hunch; calibrate the pair anew"
    return None


class LearnedEstimator:
    """Judges by a profile's model. Raises ConfigurationError where this version does not know its features."""

    def __init__(self, model: LearnedModel) -> None:
        unusable = why_unusable(model)
        if unusable is not None:
            raise ConfigurationError(unusable)
        scales = np.array(model.scales)  # [38]
        self._weights = np.array(model.weights) / scales  # [38]
        self._intercept = model.intercept - float(np.array(model.means) @ self._weights)
        self._tables = [_as_dict(getattr(model, name)) for name in TABLES]

    def __call__(self, prediction: Prediction, token_id: int) -> float:
        """The estimated rejection probability of the draft token."""
        plain = prediction_features(prediction, token_id)
        keys = table_keys(prediction, token_id)
        residuals = np.array([table.get(key, 0.0) for table, key in zip(self._tables, keys, strict=True)])
        features = np.concatenate([plain, token_features(plain, residuals)])
        logit = self._intercept + float(features @ self._weights)
        return 1.0 / (1.0 + math.exp(-min(40.0, max(-40.0, logit))))


def _logit(p: float) -> float:
    return math.log((p + _EPSILON) / (1.0 - p + _EPSILON))


def _as_dict(table: ResidualTable) -> dict[int, float]:
    return {key: value / 1000 for key, value in zip(table.keys, table.thousandths, strict=True)}
