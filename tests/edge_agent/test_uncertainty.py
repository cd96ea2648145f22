"""Estimators of uncertainty against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_agent.prediction import Prediction, predict
from edge_agent.uncertainty import (
    ESTIMATOR_NAMES,
    SampledPerturbation,
    TemperaturePerturbation,
    entropy,
    estimator,
    improbability,
    margin,
)
from schemas.sampling import SamplingParameters

THETAS = np.arange(1, 21) * 0.1
PARAMETERS = SamplingParameters(temperature=0.7)


def logits_of(kind: str, size: int) -> np.ndarray:
    rng = np.random.default_rng(len(kind) + size)
    logits = rng.normal(scale=3.0, size=size).astype(np.float32)
    if kind == "one far ahead":
        logits[3] = logits.max() + 12
    elif kind == "flat":
        logits = rng.normal(scale=0.5, size=size).astype(np.float32)
    elif kind == "wide":
        logits *= 3
    return logits


def perturbed(logits: np.ndarray, token_id: int) -> np.ndarray:
    """Twenty plain softmaxes in float64."""
    scaled = (logits.astype(np.float64) - logits.max())[None, :] / THETAS[:, None]
    return np.asarray(np.exp(scaled[:, token_id]) / np.exp(scaled).sum(axis=1))


@pytest.mark.parametrize("kind", ["plain", "one far ahead", "flat", "wide"])
@pytest.mark.parametrize("size", [50, 4096, 60_000])
def test_the_closed_form_equals_twenty_softmaxes(kind, size):
    logits = logits_of(kind, size)
    closed_form = TemperaturePerturbation()
    for token_id in (3, size - 1, int(logits.argmax())):
        exact = perturbed(logits, token_id)
        assert closed_form.probabilities(logits, token_id) == pytest.approx(exact, abs=2e-3)
        u = closed_form(predict(logits, PARAMETERS), token_id)
        assert u == pytest.approx(1 - exact.mean(), abs=3e-4)


def test_the_sampled_estimator_is_a_share_of_twenty_and_right_on_average():
    prediction = predict((logits_of("one far ahead", 200) / 4).astype(np.float32), PARAMETERS)
    sampled = SampledPerturbation(np.random.default_rng(0))
    scores = np.array([sampled(prediction, 3) for _ in range(4000)])
    assert np.allclose(scores * 20, np.rint(scores * 20))
    expected = TemperaturePerturbation()(prediction, 3)
    assert scores.mean() == pytest.approx(expected, abs=4 * scores.std() / math.sqrt(len(scores)))


def prediction_of(*probabilities: float) -> Prediction:
    return predict(np.log(np.array(probabilities)).astype(np.float32), SamplingParameters(temperature=1.0))


def test_the_simple_estimators_by_hand():
    prediction = prediction_of(0.5, 0.25, 0.125, 0.125)
    assert improbability(prediction, 1) == pytest.approx(0.75)
    assert margin(prediction, 0) == pytest.approx(1 - (0.5 - 0.25))
    assert entropy(prediction, 0) == pytest.approx(1.75 / 2)


def test_the_margin_finds_the_best_two_wherever_they_stand():
    for order in ((0.6, 0.3, 0.1), (0.3, 0.6, 0.1), (0.1, 0.3, 0.6)):
        assert margin(prediction_of(*order), 0) == pytest.approx(0.7)


def test_a_greedy_session_is_judged_by_its_plain_softmax():
    prediction = predict(np.log(np.array([0.6, 0.4], np.float32)), SamplingParameters(temperature=0))
    assert improbability(prediction, 0) == pytest.approx(0.4)
    assert prediction.q.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ESTIMATOR_NAMES)
@pytest.mark.parametrize(
    "logits", [[0, 0, 0], [50, -np.inf, 0], [1000, 0, -1000], [-np.inf, 3, -np.inf]], ids=str
)
def test_every_estimator_stays_in_0_to_1_and_is_finite(name, logits):
    prediction = predict(np.array(logits, np.float32), PARAMETERS)
    score = estimator(name, np.random.default_rng(0))(prediction, int(prediction.q.argmax()))
    assert 0 <= score <= 1
