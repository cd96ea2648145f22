"""Estimators of uncertainty against their definitions."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from edge_agent.prediction import Prediction, predict
from edge_agent.uncertainty import (
    ESTIMATOR_NAMES,
    NUM_PERTURBATIONS,
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


def test_two_equal_tokens_have_the_perturbation_that_one_computes_by_hand():
    # Each softmax gives 1/2 at every temperature.
    prediction = predict(np.array([3, 3], np.float32), PARAMETERS)
    assert TemperaturePerturbation()(prediction, 0) == pytest.approx(0.5, abs=1e-6)


def test_two_tokens_one_logit_apart_are_twenty_logistic_functions():
    expected = 1 - np.mean([1 / (1 + math.exp(-1 / theta)) for theta in THETAS])
    prediction = predict(np.array([1, 0], np.float32), PARAMETERS)
    assert TemperaturePerturbation()(prediction, 0) == pytest.approx(expected, abs=1e-4)


def test_temperatures_are_spread_over_the_interval_that_the_paper_names():
    assert len(THETAS) == NUM_PERTURBATIONS == 20
    assert THETAS[0] > 0
    assert THETAS[-1] == pytest.approx(2)


@pytest.mark.parametrize("kind", ["heavy tail", "two clusters", "half impossible", "far away"])
def test_the_closed_form_stays_near_where_logits_are_unlike_a_models(kind):
    rng = np.random.default_rng(3)
    size = 50_000
    logits = {
        "heavy tail": lambda: rng.exponential(2, size),
        "two clusters": lambda: np.where(np.arange(size) < 500, -4.5, -12.0) + 4.5 * (np.arange(size) == 3),
        "half impossible": lambda: np.where(rng.random(size) < 0.5, -np.inf, rng.normal(scale=2, size=size)),
        "far away": lambda: np.where(np.arange(size) == 3, 0.0, -200.0),
    }[kind]().astype(np.float32)
    for token_id in (3, int(logits.argmax())):
        u = TemperaturePerturbation()(predict(logits, PARAMETERS), token_id)
        exact = perturbed(logits, token_id) if np.isfinite(logits[token_id]) else np.zeros(20)
        assert u == pytest.approx(1 - exact.mean(), abs=5e-3)


def test_an_impossible_token_is_as_uncertain_as_can_be():
    prediction = predict(np.array([2, -np.inf, 1], np.float32), PARAMETERS)
    assert TemperaturePerturbation()(prediction, 1) == 1.0
    assert improbability(prediction, 1) == 1.0


def test_a_certain_token_leaves_no_uncertainty_to_any_estimator():
    prediction = predict(np.array([-np.inf, 3, -np.inf], np.float32), PARAMETERS)
    for name in ESTIMATOR_NAMES:
        assert estimator(name, np.random.default_rng(0))(prediction, 1) == pytest.approx(0, abs=1e-6), name


def test_a_uniform_distribution_is_the_most_uncertain_there_is():
    prediction = predict(np.zeros(1000, np.float32), PARAMETERS)
    assert entropy(prediction, 0) == pytest.approx(1)
    assert margin(prediction, 0) == pytest.approx(1)
    assert improbability(prediction, 0) == pytest.approx(0.999)
    assert TemperaturePerturbation()(prediction, 0) == pytest.approx(0.999, abs=1e-5)


def test_an_estimator_is_not_misled_by_the_vocabulary_it_saw_before():
    closed_form = TemperaturePerturbation()
    large, small = (predict(logits_of("plain", size), PARAMETERS) for size in (4096, 50))
    before = closed_form(small, 3)
    closed_form(large, 3)
    assert closed_form(small, 3) == before


@pytest.mark.parametrize("name", ESTIMATOR_NAMES)
@given(logits=arrays(np.float32, st.integers(2, 60), elements=st.floats(-100, 100, width=32)), data=st.data())
def test_every_estimator_gives_a_number_from_0_to_1_for_every_token(name, logits, data):
    prediction = predict(logits, PARAMETERS)
    token_id = data.draw(st.integers(0, len(logits) - 1))
    assert 0 <= estimator(name, np.random.default_rng(0))(prediction, token_id) <= 1


def test_a_name_that_is_no_estimator_is_a_key_error():
    with pytest.raises(KeyError):
        estimator("guess", np.random.default_rng(0))
