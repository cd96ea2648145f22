"""Random numbers that both ends derive from one seed. In: seed, stream, position. Out: random numbers.

The two streams are independent, as exact verification needs. The worker's numbers depend on the position
alone, so a draft that is sent again, even to another worker, gets the same verdict.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt


class Stream(Enum):
    """What random numbers are for."""

    DRAFT = 0
    VERDICT = 1


def generator(seed: int, stream: Stream, position: int = 0) -> np.random.Generator:
    """A generator of its own for a seed (64 bits), a stream and a position (Philox, counter based)."""
    key = np.array([seed, stream.value], np.uint64)
    counter = np.array([0, 0, 0, position], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def verdict_uniforms(seed: int, position: int) -> npt.NDArray[np.float64]:
    """The worker's three numbers in [0, 1) for a token in doubt: to accept, to recover, for the bonus."""
    return generator(seed, Stream.VERDICT, position).random(3)
