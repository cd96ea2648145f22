"""The learned estimator: the same on the board as in the fit, and cheap."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from edge_agent.calibration.building import fit_learned
from edge_agent.history import History
from edge_agent.learned import FEATURES, TABLES, LearnedEstimator, prediction_features, table_keys
from edge_agent.prediction import predict
from edge_agent.uncertainty import estimator
from schemas.errors import ConfigurationError
from schemas.sampling import SamplingParameters
from tests.profiles import made_up_columns, made_up_profile

RNG = np.random.default_rng(0)


def _logits(size: int = 4096) -> np.ndarray:
    return RNG.normal(scale=4.0, size=size).astype(np.float32)


def test_the_board_computes_what_the_fit_computed():
    columns = made_up_columns()
    predictions = [
        predict(_logits(), SamplingParameters(), History([9, i % 5, i % 3, 9, i % 5, i % 3]))
        for i in range(len(columns.betas))
    ]
    token_ids = [int(prediction.q.argmax()) % 11 for prediction in predictions]
    pairs = list(zip(predictions, token_ids, strict=True))
    columns.plain[:] = [prediction_features(prediction, token_id) for prediction, token_id in pairs]
    columns.keys[:] = [table_keys(prediction, token_id) for prediction, token_id in pairs]
    model, fitted = fit_learned(columns)
    judge = LearnedEstimator(model)
    held_out = np.flatnonzero(columns.held_out)
    on_board = [judge(*pairs[index]) for index in held_out]
    # Tables travel in thousandths.
    assert on_board == pytest.approx(fitted[held_out], abs=0.01)


@pytest.mark.parametrize("logits", [np.zeros(5000, np.float32), np.eye(1, 5000, dtype=np.float32)[0] * 90])
def test_flat_and_certain_distributions_give_a_finite_uncertainty(logits):
    judge = LearnedEstimator(made_up_profile().learned)
    prediction = predict(logits, SamplingParameters())
    assert 0 <= judge(prediction, 0) <= 1
    assert 0 <= judge(prediction, 1) <= 1


def _keys(token_id: int, *before: int, likely: dict[int, float]) -> dict[str, int]:
    logits = np.full(20, -90.0, np.float32)
    for other, share in likely.items():
        logits[other] = np.log(share)
    prediction = predict(logits, SamplingParameters(temperature=1), History(before))
    return dict(zip(TABLES, table_keys(prediction, token_id), strict=True))


def _joint(*token_ids: int) -> int:
    return zlib.crc32(b"".join(token_id.to_bytes(4, "little") for token_id in token_ids))


def test_keys_are_of_the_draft_token_what_stands_before_it_and_what_might_stand_there_instead():
    keys = _keys(5, 2, 3, likely={4: 0.2, 5: 0.5, 6: 0.3})
    assert keys == {
        "draft_token": 5,
        "previous_token": 3,
        "pair": _joint(3, 5),
        "alternative": _joint(5, 6),
        "triple": _joint(2, 3, 5),
    }
    assert _keys(4, 2, 3, likely={4: 0.2, 5: 0.5, 6: 0.3})["alternative"] == _joint(4, 5)
    assert _keys(5, 2, 3, likely={5: 1.0})["alternative"] == _joint(5, 5)


def test_the_beginning_of_a_text_has_keys_too():
    assert _keys(5, likely={5: 1.0})["triple"] == _joint(0, 0, 5)
    assert _keys(5, 3, likely={5: 1.0})["triple"] == _joint(0, 3, 5)
    assert _keys(5, likely={5: 1.0})["previous_token"] == 0


def test_a_copy_is_told_from_a_token_that_never_followed():
    prediction = predict(_logits(), SamplingParameters(), History([5, 6, 7, 5, 6]))
    features = dict(zip(FEATURES, prediction_features(prediction, 7), strict=False))
    assert (features["2 repeat"], features["2 repeat, share followed by d"]) == (1, 1)
    assert (features["3 repeat"], features["3 repeat, share followed by d"]) == (0, 0)
    other = dict(zip(FEATURES, prediction_features(prediction, 8), strict=False))
    assert (other["2 repeat"], other["2 repeat, share followed by d"]) == (1, 0)


def test_features_of_another_version_are_refused():
    model = made_up_profile().learned
    foreign = model.model_copy(update={"features": FEATURES[::-1]})
    with pytest.raises(ConfigurationError, match="calibrate the pair anew"):
        LearnedEstimator(foreign)


def test_the_learned_estimator_needs_a_profile():
    with pytest.raises(ConfigurationError, match="needs a profile"):
        estimator("learned", RNG)
