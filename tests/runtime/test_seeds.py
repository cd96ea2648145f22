"""Random numbers that both ends derive: repeatable, uniform, independent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from runtime.seeds import Stream, generator, verdict_uniforms

GOLDEN_VERDICT = [0.6646485334270675, 0.14268204167862508, 0.8547230429258507]
GOLDEN_DRAFT = [117, 77, 186, 217, 119, 39]


def test_a_seed_gives_the_same_numbers_again():
    assert generator(5, Stream.DRAFT).random(4).tolist() == generator(5, Stream.DRAFT).random(4).tolist()
    assert verdict_uniforms(5, 9).tolist() == verdict_uniforms(5, 9).tolist()


def test_the_numbers_are_these_on_every_machine():
    # A draft that goes to another worker must get the same verdict, so they are part of the contract.
    assert verdict_uniforms(1, 5).tolist() == pytest.approx(GOLDEN_VERDICT, abs=0)
    assert generator(1, Stream.DRAFT).integers(256, size=6).tolist() == GOLDEN_DRAFT


def test_seed_stream_and_position_each_make_other_numbers():
    numbers = [
        generator(5, Stream.DRAFT).random(),
        generator(6, Stream.DRAFT).random(),
        generator(5, Stream.VERDICT).random(),
        generator(5, Stream.VERDICT, 1).random(),
    ]
    assert len(set(numbers)) == len(numbers)


def test_positions_never_share_numbers_however_many_each_takes():
    first, second = (generator(5, Stream.VERDICT, position).random(1000) for position in (8, 9))
    assert not np.isin(first, second).any()


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_every_seed_and_position_that_the_wire_carries_works(seed):
    for position in (0, 2**24 - 1):
        numbers = verdict_uniforms(seed, position)
        assert numbers.shape == (3,)
        assert ((numbers >= 0) & (numbers < 1)).all()


def test_the_verdicts_numbers_are_uniform_over_positions_and_independent():
    numbers = np.array([verdict_uniforms(1, position) for position in range(4000)])  # [positions, 3]
    for column in numbers.T:
        assert chisquare(np.bincount((column * 20).astype(int), minlength=20)).pvalue > 1e-4
    # Of 4,000 independent pairs the correlation has a standard deviation of 0.016.
    neighbours = np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]
    assert max(abs(np.corrcoef(numbers.T)[np.triu_indices(3, 1)]).max(), abs(neighbours)) < 0.063


def test_what_the_edge_draws_tells_nothing_of_the_verdicts():
    drafts = np.array([generator(seed, Stream.DRAFT).random() for seed in range(4000)])
    verdicts = np.array([generator(seed, Stream.VERDICT).random() for seed in range(4000)])
    assert abs(np.corrcoef(drafts, verdicts)[0, 1]) < 0.063
