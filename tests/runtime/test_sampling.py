"""Logits to distributions, against a plain reference in float64."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis.extra.numpy import arrays

from runtime.sampling import distribution, draw, largest, shape, softmax
from schemas.errors import ModelError
from schemas.sampling import SamplingParameters

LOGITS = arrays(np.float32, st.integers(1, 60), elements=st.floats(-30, 30, width=32))
PARAMETERS = st.builds(
    SamplingParameters,
    temperature=st.floats(0.1, 3),
    top_k=st.none() | st.integers(1, 70),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.9),
)


def reference(logits, parameters):
    """The sampling parameters one after another, over the whole vocabulary, sorted."""
    scaled = logits.astype(np.float64) / parameters.temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    order = np.argsort(-p.astype(np.float32), kind="stable")
    kept = order if parameters.top_k is None else order[: parameters.top_k]
    if parameters.top_p < 1:
        reached = np.cumsum(p[kept]) / p[kept].sum() >= parameters.top_p
        kept = kept[: int(np.argmax(reached)) + 1] if reached.any() else kept
    kept = kept[p[kept] >= parameters.min_p * p.max()]
    result = np.zeros_like(p)
    result[kept] = p[kept] / p[kept].sum()
    return result


@given(LOGITS, PARAMETERS)
def test_the_filters_leave_what_the_reference_leaves(logits, parameters):
    ours, expected = distribution(logits, parameters), reference(logits, parameters)
    assert ours.sum() == pytest.approx(1, abs=1e-5)
    differing = np.abs(ours - expected) > 1e-5
    if differing.any():
        # float32 may count a token at the very edge of top-p or min-p in or out; nothing else may differ.
        tempered = softmax(logits, parameters.temperature)
        cut = np.flatnonzero((ours > 0) != (expected > 0))
        assert len(cut) == 1
        close = np.cumsum(np.sort(tempered)[::-1])
        near_top_p = np.abs(close / close[-1] - parameters.top_p).min() < 1e-4 or parameters.top_k is not None
        near_min_p = abs(tempered[cut[0]] - parameters.min_p * tempered.max()) < 1e-5
        assert near_top_p or near_min_p


def test_greedy_takes_the_likeliest_alone():
    assert distribution(np.array([1, 5, 5, 2], np.float32), SamplingParameters(temperature=0)).tolist() == [
        0,
        1,
        0,
        0,
    ]


def test_equal_tokens_are_cut_in_the_order_of_their_ids():
    p = distribution(np.zeros(5, np.float32), SamplingParameters(temperature=1, top_k=2))
    assert p.tolist() == [0.5, 0.5, 0, 0, 0]


@given(arrays(np.float32, st.integers(1, 300), elements=st.floats(0, 1, width=32)), st.integers(1, 400))
def test_the_largest_entries_come_out_in_order(values, count):
    ids = largest(values, count)
    assert len(set(ids.tolist())) == len(ids) == min(count, len(values))
    assert values[ids].tolist() == sorted(values.tolist(), reverse=True)[:count]


def test_a_draw_lands_where_the_uniform_number_says():
    weights = np.array([0.0, 2.0, 0.0, 6.0])
    assert [draw(weights, uniform) for uniform in (0.0, 0.249, 0.251, 1 - 1e-16)] == [1, 1, 3, 3]


def test_top_p_keeps_the_token_that_reaches_it_and_no_more():
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125])).astype(np.float32)
    for top_p, kept in [(0.4, 1), (0.6, 2), (0.7499, 2), (0.8, 3), (0.99, 4)]:
        p = distribution(logits, SamplingParameters(temperature=1, top_p=top_p))
        assert np.count_nonzero(p) == kept


def test_top_p_counts_the_mass_of_what_top_k_has_left():
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1])).astype(np.float32)
    p = distribution(logits, SamplingParameters(temperature=1, top_k=2, top_p=0.56))
    assert p.tolist() == [1, 0, 0, 0]  # 0.4 of 0.7 is 0.571


def test_min_p_is_a_share_of_the_likeliest_and_1_keeps_only_its_equals():
    logits = np.log(np.array([0.4, 0.4, 0.15, 0.05])).astype(np.float32)
    assert np.count_nonzero(distribution(logits, SamplingParameters(temperature=1, min_p=0.3))) == 3
    assert distribution(logits, SamplingParameters(temperature=1, min_p=1)).tolist() == [0.5, 0.5, 0, 0]


def test_filters_over_a_vocabulary_of_real_size_agree_with_the_reference():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.5, size=50_000).astype(np.float32)
    for parameters in (
        SamplingParameters(temperature=0.7, top_p=0.9),
        SamplingParameters(temperature=1.5, top_k=2000, top_p=0.95, min_p=1e-4),
        SamplingParameters(temperature=3, top_p=0.999),
        SamplingParameters(temperature=1, top_k=40),
    ):
        ours, expected = distribution(logits, parameters), reference(logits, parameters)
        assert np.count_nonzero((ours > 0) != (expected > 0)) <= 1
        assert np.abs(ours - expected).max() < 1e-5


def test_a_flat_vocabulary_is_cut_all_the_same():
    p = distribution(np.zeros(50_000, np.float32), SamplingParameters(temperature=1, top_p=0.5))
    assert np.count_nonzero(p) == pytest.approx(25_000, abs=2)
    assert p.sum() == pytest.approx(1, abs=1e-4)


def test_without_filters_nothing_is_copied_or_cut():
    tempered = softmax(np.array([1, 2, 3], np.float32))
    assert shape(tempered, SamplingParameters(temperature=1)) is tempered
    assert shape(tempered, SamplingParameters(temperature=1, top_k=3)) is tempered


def test_the_logits_stay_as_they_were():
    logits = np.array([1, 2, 3], np.float32)
    distribution(logits, SamplingParameters(temperature=0.5, top_k=2))
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("temperature", [1e-3, 10.0])
def test_the_most_extreme_temperatures_give_a_distribution(temperature):
    p = softmax(np.array([-1000, 0, 80, 80, -np.inf], np.float32), temperature)
    assert p.sum() == pytest.approx(1, abs=1e-6)
    assert p[2] == p[3] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("logits", [[0, np.nan], [np.inf, 0], [-np.inf, -np.inf]], ids=str)
def test_logits_that_are_no_numbers_are_an_error(logits):
    with pytest.raises(ModelError, match="best logit is"):
        softmax(np.array(logits, np.float32))


def test_a_draw_never_selects_what_has_no_weight():
    weights = np.array([0.0, 0.1, 0.0, 0.2, 0.0])
    for uniform in (0.0, 1 / 3 - 1e-9, 1 / 3 + 1e-9, 1 - 2**-53):
        assert draw(weights, uniform) in {1, 3}


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1)), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_first_whose_share_of_the_sum_exceeds_the_uniform_number(weights, uniform):
    assume(weights.sum() > 1e-300)
    index = draw(weights, uniform)
    cumulative = np.cumsum(weights)
    assert weights[index] > 0
    assert cumulative[index] > uniform * cumulative[-1]
    assert index == 0 or cumulative[index - 1] <= uniform * cumulative[-1]


def test_one_weight_alone_is_always_drawn():
    assert draw(np.array([1e-30]), 0.999) == 0
