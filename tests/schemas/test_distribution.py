"""`q_hat`: whatever `q` is, the weights are exact, nearest and drawn as they say; what is no `q` is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from schemas.distribution import MAX_K, WEIGHT_SUM, DraftToken, one_hot, quantise
from schemas.errors import ModelError

# Of any size a float can have, so that sums underflow and overflow; each may be zero.
PROBABILITIES = st.lists(st.floats(0, 1e308) | st.sampled_from([0.0, 5e-324, 1e-320, 1.0]), min_size=1)
DTYPES = st.sampled_from([np.float16, np.float32, np.float64])


def ids(count):
    return np.arange(count, dtype=np.int32)


def check(q_hat):
    """What holds for every `q_hat`."""
    assert 1 <= q_hat.k <= MAX_K
    assert q_hat.token_ids.dtype == np.int32
    assert q_hat.weights.dtype == np.uint16
    assert q_hat.token_ids.shape == q_hat.weights.shape == (q_hat.k,)
    assert (np.diff(q_hat.token_ids) > 0).all()
    assert (q_hat.weights >= 1).all()
    assert int(q_hat.weights.sum()) == WEIGHT_SUM
    assert float(q_hat.probabilities().sum()) == 1.0


@given(PROBABILITIES.filter(any))
def test_any_numbers_that_are_not_all_zero_give_exact_weights(probabilities):
    q_hat = quantise(np.array(probabilities), ids(len(probabilities)))
    check(q_hat)
    assert all(probabilities[token_id] > 0 for token_id in q_hat.token_ids)


@given(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=600).filter(any), DTYPES)
def test_every_float_type_and_more_than_256_tokens_give_exact_weights(probabilities, dtype):
    check(quantise(np.array(probabilities, dtype), ids(len(probabilities))))


@given(st.lists(st.floats(2**-10, 1, width=32), min_size=1, max_size=400))
def test_no_weight_is_a_whole_256th_from_its_share(probabilities):
    shares = np.array(probabilities) / sum(probabilities) * WEIGHT_SUM
    q_hat = quantise(np.array(probabilities), ids(len(probabilities)))
    weights = np.zeros(len(probabilities))
    weights[q_hat.token_ids] = q_hat.weights
    assert np.abs(weights - shares).max() < 1 + 1e-9


@given(st.permutations(range(20)))
def test_the_order_of_the_tokens_does_not_matter(order):
    # Powers of 0.7: no two remainders are equal, so that there are no ties to break.
    probabilities, token_ids = 0.7 ** np.arange(20), (ids(20) * 977) % 4096
    shuffled = quantise(probabilities[list(order)], token_ids[list(order)])
    assert shuffled.same_as(quantise(probabilities, token_ids))


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.5, 0.3, 0.0005], {0: 160, 1: 96}),
        ([0.5, 0.25, 0.25], {0: 128, 1: 64, 2: 64}),
        ([1, 1, 1], {0: 86, 1: 85, 2: 85}),
        ([0, 3, 0, 1], {1: 192, 3: 64}),
        ([1e-45, 2e-45], {0: 85, 1: 171}),
        ([5e-324], {0: 256}),
        ([1e308, 1e308], {0: 128, 1: 128}),
        ([0.1], {0: 256}),
        ([255 / 256, 1 / 256], {0: 255, 1: 1}),
    ],
)
def test_weights_go_by_largest_remainder(probabilities, expected):
    q_hat = quantise(np.array(probabilities), ids(len(probabilities)))
    assert dict(zip(q_hat.token_ids.tolist(), q_hat.weights.tolist(), strict=True)) == expected


@pytest.mark.parametrize("count", [256, 257, 1000, 151_936])
def test_of_more_tokens_than_weights_256_stay(count):
    q_hat = quantise(np.full(count, 1 / count, np.float32), ids(count))
    check(q_hat)
    assert q_hat.k == MAX_K


def test_wide_ids_and_whole_numbers_are_taken():
    q_hat = quantise(np.array([2, 1, 1]), np.array([2**24 - 1, 7, 0], np.int64))
    check(q_hat)
    assert q_hat.token_ids.tolist() == [0, 7, 2**24 - 1]
    assert q_hat.weights.tolist() == [64, 64, 128]


def test_what_was_given_is_not_changed():
    probabilities, token_ids = np.array([0.2, 0.8]), np.array([9, 3], np.int32)
    quantise(probabilities, token_ids)
    assert probabilities.tolist() == [0.2, 0.8]
    assert token_ids.tolist() == [9, 3]


@pytest.mark.parametrize(
    "probabilities",
    [[], [0.0], [0.0, -0.0], [np.nan], [0.5, np.nan], [np.inf, 1.0], [-0.1, 1.1], [-np.inf, 1.0], [-1.0]],
)
def test_what_is_no_distribution_is_refused(probabilities):
    with pytest.raises(ModelError, match="no distribution"):
        quantise(np.array(probabilities), ids(len(probabilities)))


def test_tokens_are_drawn_by_their_weights():
    q_hat = quantise(np.array([100, 90, 50, 15, 1]), np.array([40, 30, 20, 10, 0], np.int32))
    assert q_hat.weights.tolist() == [1, 15, 50, 90, 100]
    rng = np.random.default_rng(7)
    drawn = [q_hat.draw(rng) for _ in range(20_000)]
    for token in set(drawn):
        assert token.token_id == q_hat.token_ids[token.index]
        assert token.weight == q_hat.weights[token.index]
        assert token.probability == token.weight / 256
    counts = np.bincount([token.index for token in drawn], minlength=5)
    assert stats.chisquare(counts, q_hat.probabilities() * len(drawn)).pvalue > 1e-3


def test_every_one_of_the_256_numbers_draws_the_token_it_falls_on():
    class Numbers:
        def __init__(self):
            self.next = 0

        def integers(self, high):
            assert high == WEIGHT_SUM
            self.next += 1
            return self.next - 1

    q_hat = quantise(np.array([3, 250, 3]), ids(3))
    numbers = Numbers()
    drawn = [q_hat.draw(numbers).index for _ in range(WEIGHT_SUM)]  # type: ignore[arg-type]
    assert [drawn.count(index) for index in range(3)] == q_hat.weights.tolist()


def test_a_certain_token_is_drawn_with_probability_one():
    q_hat = one_hot(42)
    check(q_hat)
    assert q_hat.draw(np.random.default_rng(1)) == DraftToken(42, 0, 256)
    assert q_hat.draw(np.random.default_rng(1)).probability == 1.0


def test_distributions_are_the_same_by_tokens_and_weights():
    one, other = quantise(np.array([1, 3]), ids(2)), quantise(np.array([0.25, 0.75]), ids(2))
    assert one.same_as(other)
    assert not one.same_as(quantise(np.array([3, 1]), ids(2)))
    assert not one.same_as(quantise(np.array([1, 3]), ids(2) + 1))
    assert not one.same_as(one_hot(0))
