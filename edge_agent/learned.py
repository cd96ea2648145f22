"""The learned estimator: `u` is an estimate of `beta` itself. In: a prediction, the draft token. Out: `u`.

A logistic model over what the prediction has at hand, over whether the draft token is a copy of what stood before,
and over which tokens these are: the draft token, the two before it, and the draft token together with the one
before. Its weights come with the pair's profile. Beside the prediction it takes one comparison over the
vocabulary; all else happens among the few likely tokens.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edge_agent.history import MAX_CONTEXT
from edge_agent.prediction import LEAST_SHARE, Prediction
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
TABLES = ("draft_token", "previous_token", "one_before", "pair")
TOKEN_FEATURES = (
    *TABLES,
    *(f"{table} * doubt" for table in ("draft_token", "previous_token", "pair")),
    *(f"{table} * logit q[d]" for table in ("draft_token", "previous_token")),
)
FEATURES = PREDICTION_FEATURES + TOKEN_FEATURES

# Logarithms of probabilities are taken this far from 0 and 1: beyond, float32 sums say nothing more.
_EPSILON = 1e-4
# Spaces the two ids of a pair apart (ids lie below 2^24, see schemas.frames), within what JSON keeps exact.
_PAIR_STRIDE = 2**24

Features = npt.NDArray[np.float64]  # [features]


def prediction_features(prediction: Prediction, token_id: int) -> Features:
    """`[23]`, as `PREDICTION_FEATURES` names them.

    Those of the prediction are taken from the tokens that would get a weight in `q_hat`.
    """
    p = prediction.tempered
    head = np.sort(p[p >= LEAST_SHARE].astype(np.float64))[::-1]
    best, second, third = (float(head[rank]) if len(head) > rank else 0.0 for rank in range(3))
    mass = float(p[token_id])
    entropy = -float(head @ np.log(head)) if len(head) else math.log(len(p))
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


def table_keys(token_id: int, previous_ids: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The keys to look up in `TABLES`; 0 stands for tokens before the beginning."""
    before, one_before = (0, 0, *previous_ids)[-1], (0, 0, *previous_ids)[-2]
    return token_id, before, one_before, before * _PAIR_STRIDE + token_id


def token_features(plain: Features, residuals: Features) -> Features:
    """`[..., 9]`, as `TOKEN_FEATURES` names them, from `[..., 23]` features and `[..., 4]` residuals.

    "Doubt" is the standard deviation of "it is the likeliest token", sqrt(p (1 - p)): identity matters where
    the draft model hesitates.
    """
    own, top = plain[..., 0], 1.0 / (1.0 + np.exp(-plain[..., 1]))
    doubt = np.sqrt(top * (1.0 - top))
    draft, before, _, pair = (residuals[..., index] for index in range(4))
    extra = np.stack([draft * doubt, before * doubt, pair * doubt, draft * own, before * own], axis=-1)
    return np.concatenate([residuals, extra], axis=-1)


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
        scales = np.array(model.scales)  # [32]
        self._weights = np.array(model.weights) / scales  # [32]
        self._intercept = model.intercept - float(np.array(model.means) @ self._weights)
        tables = (model.draft_token, model.previous_token, model.one_before, model.pair)
        self._tables = [_as_dict(table) for table in tables]

    def __call__(self, prediction: Prediction, token_id: int) -> float:
        """The estimated rejection probability of the draft token."""
        plain = prediction_features(prediction, token_id)
        keys = table_keys(token_id, prediction.history.last(2))
        residuals = np.array([table.get(key, 0.0) for table, key in zip(self._tables, keys, strict=True)])
        features = np.concatenate([plain, token_features(plain, residuals)])
        logit = self._intercept + float(features @ self._weights)
        return 1.0 / (1.0 + math.exp(-min(40.0, max(-40.0, logit))))


def _logit(p: float) -> float:
    return math.log((p + _EPSILON) / (1.0 - p + _EPSILON))


def _as_dict(table: ResidualTable) -> dict[int, float]:
    return {key: value / 1000 for key, value in zip(table.keys, table.thousandths, strict=True)}
