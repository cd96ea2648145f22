"""The audit's bytes: exact at the ends, finest near zero, unbiased in the mean, safe from rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.audit import decode_betas, encode_betas


@pytest.mark.parametrize(
    ("betas", "data"),
    [([], ""), ([0.0, 1.0], "00ff"), ([0.25], "80"), ([1 / 255**2], "01"), ([1e-6], "00"), ([0.5], "b4")],
)
def test_a_beta_has_the_byte_of_the_protocol_page(betas, data):
    assert encode_betas(np.array(betas, np.float64)).hex() == data


@given(st.binary(max_size=100))
def test_every_byte_is_read_and_written_as_the_same_byte(data):
    betas = decode_betas(data)
    assert betas.shape == (len(data),)
    assert ((betas >= 0) & (betas <= 1)).all()
    assert encode_betas(betas) == data
    assert encode_betas(betas.astype(np.float32)) == data


@given(st.lists(st.floats(0, 1), max_size=50))
def test_a_beta_comes_back_to_within_half_a_step_of_its_root(betas):
    back = decode_betas(encode_betas(np.array(betas, np.float64)))
    assert np.abs(np.sqrt(back) - np.sqrt(betas)).max(initial=0.0) <= 0.5 / 255 + 1e-12


def test_the_mean_of_many_is_unbiased():
    for high in (0.01, 0.1, 1.0):
        betas = np.linspace(0, high, 200_001)
        assert abs(decode_betas(encode_betas(betas)).mean() - betas.mean()) < 5e-6


@pytest.mark.parametrize(
    ("beta", "byte"), [(-1e-17, 0), (-0.5, 0), (1.0000001, 255), (1.01, 255), (np.inf, 255), (-np.inf, 0)]
)
def test_a_beta_outside_its_range_counts_as_the_nearest_within(beta, byte):
    assert list(encode_betas(np.array([beta]))) == [byte]


def test_a_beta_that_is_no_number_counts_as_certain_rejection():
    assert list(encode_betas(np.array([0.0, np.nan]))) == [0, 255]
