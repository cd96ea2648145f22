"""The audit's bytes. In: rejection probabilities `beta`. Out: one byte each, and back.

`beta` travels as its square root in 255ths: skipped tokens have small `beta`s, and this resolves them to
1.5e-5 where a linear scale would round everything under 0.002 to nothing. The mean of many is unbiased to
about 4e-6 (measured on evenly spread ones), a five-thousandth of the risk allowed by default.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_STEPS = 255


def encode_betas(betas: npt.NDArray[np.floating]) -> bytes:
    """`[n]` rejection probabilities to n bytes; rounding may have left them just outside [0, 1].

    NaN, from a target model gone wrong, counts as certain rejection: better to ask too much than too little.
    """
    betas = np.nan_to_num(np.clip(betas, 0.0, 1.0), nan=1.0)
    return bytes(np.rint(np.sqrt(betas) * _STEPS).astype(np.uint8))


def decode_betas(data: bytes) -> npt.NDArray[np.float64]:
    """n bytes to `[n]` rejection probabilities."""
    return np.square(np.frombuffer(data, np.uint8) / _STEPS)
