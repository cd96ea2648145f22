"""Logits to distributions, against a plain reference in float64."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from runtime.sampling import distribution, draw, largest, softmax
from runtime.seeds import Stream, generator, verdict_uniforms
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


def test_the_streams_of_a_seed_are_repeatable_and_differ():
    assert generator(5, Stream.DRAFT).random() == generator(5, Stream.DRAFT).random()
    assert generator(5, Stream.DRAFT).random() != generator(5, Stream.VERDICT).random()
    assert verdict_uniforms(5, 9).tolist() == verdict_uniforms(5, 9).tolist()
    assert not np.isin(verdict_uniforms(5, 9), verdict_uniforms(5, 10)).any()
    assert verdict_uniforms(2**64 - 1, 2**24 - 1).shape == (3,)


def test_the_verdicts_numbers_are_uniform_over_positions():
    numbers = np.array([verdict_uniforms(1, position) for position in range(4000)])
    assert numbers.mean(axis=0) == pytest.approx([0.5] * 3, abs=0.02)
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.06
