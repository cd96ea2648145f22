"""From logits to `q` and `q_hat`: what is sent is what was meant, cut and rounded."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from edge_agent.prediction import LEAST_SHARE, predict
from runtime.sampling import distribution, softmax
from schemas.distribution import MAX_K, WEIGHT_SUM
from schemas.errors import ModelError
from schemas.sampling import SamplingParameters

PLAIN = SamplingParameters(temperature=1.0)
LOGITS = arrays(np.float32, st.integers(1, 400), elements=st.floats(-20, 20, width=32))
PARAMETERS = st.builds(
    SamplingParameters,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.none() | st.integers(1, 50),
    top_p=st.floats(0.1, 1),
    min_p=st.floats(0, 0.5),
)


def prediction_of(*probabilities: float):
    return predict(np.log(np.array(probabilities)).astype(np.float32), PLAIN)


def test_q_is_what_the_worker_would_make_of_the_same_logits():
    logits = np.random.default_rng(0).normal(size=100).astype(np.float32)
    parameters = SamplingParameters(temperature=0.8, top_k=20, top_p=0.9, min_p=0.02)
    assert np.array_equal(predict(logits, parameters).q, distribution(logits, parameters))


def test_the_plain_softmax_stays_beside_what_the_filters_leave():
    logits = np.array([2, 1, 0], np.float32)
    prediction = predict(logits, SamplingParameters(temperature=0.5, top_k=1))
    assert np.array_equal(prediction.tempered, softmax(logits, 0.5))
    assert prediction.q.tolist() == [1, 0, 0]


def test_a_greedy_session_has_a_certain_q_and_a_softmax_at_temperature_1():
    logits = np.array([0, 3, 1], np.float32)
    prediction = predict(logits, SamplingParameters(temperature=0))
    assert prediction.q.tolist() == [0, 1, 0]
    assert np.array_equal(prediction.tempered, softmax(logits))
    assert prediction.truncated(16).token_ids.tolist() == [1]


def test_q_hat_holds_the_likeliest_tokens_in_256ths():
    q_hat = prediction_of(0.5, 0.3, 0.15, 0.05).truncated(2)
    assert q_hat.token_ids.tolist() == [0, 1]
    assert q_hat.weights.tolist() == [160, 96]


def test_one_token_is_a_q_hat_too():
    q_hat = prediction_of(0.2, 0.5, 0.3).truncated(1)
    assert (q_hat.token_ids.tolist(), q_hat.weights.tolist()) == ([1], [WEIGHT_SUM])


def test_of_equal_tokens_the_first_ones_are_kept():
    assert predict(np.zeros(300, np.float32), PLAIN).truncated(3).token_ids.tolist() == [0, 1, 2]


def test_what_would_get_no_weight_is_left_out_however_many_may_be_kept():
    q_hat = prediction_of(0.9, 0.1 - LEAST_SHARE / 2, LEAST_SHARE / 2).truncated(16)
    assert q_hat.token_ids.tolist() == [0, 1]


def test_a_vocabulary_so_flat_that_nothing_has_a_share_still_gives_k_tokens():
    assert predict(np.zeros(100_000, np.float32), PLAIN).truncated(16).k == 16


def test_only_tokens_of_the_share_that_is_asked_for_are_kept():
    assert prediction_of(0.6, 0.3, 0.06, 0.04).truncated(16, 0.05).token_ids.tolist() == [0, 1, 2]


@given(LOGITS, PARAMETERS, st.integers(1, MAX_K))
def test_q_hat_is_a_distribution_over_the_likeliest_tokens_that_q_allows(logits, parameters, k):
    prediction = predict(logits, parameters)
    q_hat = prediction.truncated(k)
    assert 1 <= q_hat.k <= k
    assert int(q_hat.weights.sum()) == WEIGHT_SUM
    assert q_hat.weights.min() >= 1
    assert (np.diff(q_hat.token_ids) > 0).all()
    kept = prediction.q[q_hat.token_ids]
    assert kept.min() > 0
    left_out = np.delete(prediction.q, q_hat.token_ids)
    assert kept.min() >= left_out.max(initial=0)


@given(LOGITS)
def test_rounding_moves_no_token_by_more_than_one_weight(logits):
    prediction = predict(logits, PLAIN)
    q_hat = prediction.truncated(MAX_K)
    kept = prediction.q[q_hat.token_ids].astype(np.float64)
    # Those without a weight of their own leave theirs to the others, in proportion.
    assert np.abs(q_hat.probabilities() - kept / kept.sum()).max() * WEIGHT_SUM < 1 + 256 * (1 - kept.sum())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logits_that_are_no_numbers_are_an_error_and_never_a_token(bad, temperature):
    with pytest.raises(ModelError, match="best logit is"):
        predict(np.array([0, bad, 1], np.float32), SamplingParameters(temperature=temperature))


def test_single_tokens_may_be_impossible():
    prediction = predict(np.array([0, -np.inf, 0], np.float32), PLAIN)
    assert prediction.q.tolist() == [0.5, 0, 0.5]
    assert prediction.truncated(16).token_ids.tolist() == [0, 2]


def test_the_likely_tokens_come_with_the_likeliest_first_and_a_flat_distribution_has_none():
    prediction = predict(
        np.log(np.array([0.1, 0.0005, 0.6, 0.2995], np.float32)), SamplingParameters(temperature=1)
    )
    ids, shares = prediction.likely
    assert ids.tolist() == [2, 3, 0]
    assert shares == pytest.approx([0.6, 0.2995, 0.1], abs=1e-6)
    assert len(predict(np.zeros(5000, np.float32), SamplingParameters()).likely[0]) == 0
