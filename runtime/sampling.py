"""Logits to distributions, the same on both ends. In: logits, sampling parameters. Out: `q` or `p`.

All functions are pure and take one row, `[vocab] float32`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from schemas.distribution import Probabilities
from schemas.errors import ModelError
from schemas.sampling import SamplingParameters

Logits = npt.NDArray[np.float32]  # [vocab]
Indices = npt.NDArray[np.integer]

# At most 1/t entries of a distribution are t or more, so comparing first leaves little to sort: sorting a
# vocabulary of 150,000 takes as long as six softmaxes, a comparison a tenth of one.
_CANDIDATE_FLOORS = (1e-3, 1e-6, 0.0)


def softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """softmax(logits / temperature), `[vocab] float32`; temperature > 0.

    Raises ModelError where the logits are no numbers; single tokens may be impossible (-inf).
    """
    best = logits.max()
    if not math.isfinite(best):
        raise ModelError(f"the model's best logit is {best}: its file is broken, or its arithmetic overflows")
    scaled = np.subtract(logits, best)
    if temperature != 1.0:
        scaled *= np.float32(1.0 / temperature)
    np.exp(scaled, out=scaled)
    scaled *= np.float32(1.0 / float(scaled.sum()))
    return np.asarray(scaled)


def shape(tempered: Probabilities, parameters: SamplingParameters) -> Probabilities:
    """Apply top-k, top-p and min-p to a softmax at the session's temperature; greedy: the likeliest alone.

    Returns `tempered` itself where there is nothing to cut.
    """
    if parameters.greedy:
        return _only(tempered, np.array([tempered.argmax()]))
    kept: Indices | None = None
    if parameters.top_k is not None and parameters.top_k < len(tempered):
        kept = largest(tempered, parameters.top_k)
    if parameters.top_p < 1:
        kept = _nucleus(tempered, parameters.top_p, kept)
    if parameters.min_p > 0:
        floor = parameters.min_p * float(tempered.max())
        kept = np.flatnonzero(tempered >= floor) if kept is None else kept[tempered[kept] >= floor]
    return tempered if kept is None else _only(tempered, kept)


def distribution(logits: Logits, parameters: SamplingParameters) -> Probabilities:
    """`q` or `p`: the distribution that tokens are drawn from, `[vocab] float32`."""
    return shape(softmax(logits, 1.0 if parameters.greedy else parameters.temperature), parameters)


def largest(probabilities: Probabilities, count: int) -> Indices:
    """The ids of the `count` largest entries (fewer only where the vocabulary is smaller), largest first."""
    candidates = np.arange(0)
    for floor in _CANDIDATE_FLOORS:
        candidates = np.flatnonzero(probabilities >= floor)
        if len(candidates) >= count:
            break
    return _ranked(probabilities, candidates)[:count]


def draw(probabilities: npt.NDArray[np.floating], uniform: float) -> int:
    """The index that a uniform number in [0, 1) selects from weights that need not sum to 1, `[n]`."""
    cumulative = np.cumsum(probabilities, dtype=np.float64)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(index, len(probabilities) - 1)


def _nucleus(probabilities: Probabilities, top_p: float, kept: Indices | None) -> Indices:
    """The fewest likeliest tokens whose mass reaches `top_p` of what was kept so far (None: of all)."""
    candidates = np.arange(0) if kept is None else kept
    total = 1.0 if kept is None else _mass(probabilities, kept)
    for floor in _CANDIDATE_FLOORS if kept is None else ():
        candidates = np.flatnonzero(probabilities >= floor)
        if _mass(probabilities, candidates) >= top_p:
            break
    ranked = _ranked(probabilities, candidates)
    cumulative = np.cumsum(probabilities[ranked], dtype=np.float64)
    return ranked[: int(np.searchsorted(cumulative, top_p * total)) + 1]


def _ranked(probabilities: Probabilities, candidates: Indices) -> Indices:
    return candidates[np.argsort(-probabilities[candidates], kind="stable")]


def _mass(probabilities: Probabilities, kept: Indices) -> float:
    return float(probabilities[kept].sum(dtype=np.float64))


def _only(probabilities: Probabilities, kept: Indices) -> Probabilities:
    result = np.zeros_like(probabilities)
    masses = probabilities[kept]
    result[kept] = masses / masses.sum()
    return result
