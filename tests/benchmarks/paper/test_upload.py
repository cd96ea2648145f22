"""The papers' upload: 8 + 15 bits an entry."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.paper.upload import chosen_entries, pack, unpack
from runtime.sampling import softmax
from schemas.errors import ConfigurationError, OutOfRange


def random_q(size: int, seed: int = 0) -> np.ndarray:
    """As peaked as a model's."""
    return softmax(np.random.default_rng(seed).normal(scale=6.0, size=size).astype(np.float32))


def test_an_entry_is_its_index_and_then_its_probability_without_gaps():
    q = np.zeros(4, np.float32)
    q[1] = 1.0
    assert pack(q, np.array([1])) == bytes([0b00000000, 0b00000011, 0b11111110])
    # Two entries, 46 bits: 000000000000001 11111111 000000000000010 00000000, then two bits to fill the byte.
    bits = "000000000000001" + "11111111" + "000000000000010" + "00000000" + "00"
    assert pack(q, np.array([1, 2])) == int(bits, 2).to_bytes(6)


def test_thirty_entries_take_690_bits_and_4_096_take_11_776_bytes():
    q = random_q(4096)
    assert len(pack(q, chosen_entries(q, 30))) == 87
    assert len(pack(q, chosen_entries(q, None))) == 11_776


def test_thirty_entries_come_back_as_255ths_and_the_rest_shares_what_is_left():
    q = random_q(4096)
    kept = chosen_entries(q, 30)
    back = unpack(pack(q, kept), 4096)
    assert back[kept] == pytest.approx(np.rint(q[kept] * 255) / 255)
    missing = np.delete(back, kept)
    assert missing == pytest.approx(np.full(4066, max(0.0, 1 - back[kept].sum()) / 4066))


def test_a_whole_vocabulary_comes_back_as_255ths():
    q = random_q(4096)
    back = unpack(pack(q, chosen_entries(q, None)), 4096)
    assert back == pytest.approx(np.rint(q * 255) / 255)


def test_an_index_outside_the_vocabulary_is_refused():
    q = random_q(4096)
    with pytest.raises(OutOfRange, match="4095"):
        unpack(pack(q, np.array([4095])), 4000)


def test_a_vocabulary_that_15_bits_cannot_count_is_refused_with_the_reason():
    with pytest.raises(ConfigurationError, match="15 bits"):
        chosen_entries(np.zeros(40_000, np.float32), None)
