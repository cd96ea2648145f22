"""Uncertainty `u` in [0, 1], which predicts rejection. In: a prediction, the draft token. Out: a score.

Estimators are chosen by name (`ESTIMATORS`). The paper's is temperature perturbation (CU-HLM,
arXiv:2505.11788, after U-HLM, arXiv:2412.12687): draw M = 20 tokens at temperatures spread over (0, 2] and
take the share that differs from the draft token. All M come from one logit vector, so each is a coin with
a known bias, and the expectation is `1 - mean_m softmax(z / theta_m)[d]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_agent.learned import LearnedEstimator
from edge_agent.prediction import Prediction
from runtime.sampling import Logits
from schemas.errors import ConfigurationError
from schemas.profile import LearnedModel

Estimator = Callable[[Prediction, int], float]

NUM_PERTURBATIONS = 20
# theta_m = 0.1, 0.2, …, 2.0: evenly over (0, 2].
_THETAS = np.arange(1, NUM_PERTURBATIONS + 1) * (2.0 / NUM_PERTURBATIONS)
# Tokens within this many logits of the best count exactly, the tail below them by interpolation.
_HEAD_DEPTH = 4.0
# The tail is summed exactly at these inverse temperatures: powers of one exponential (see `probabilities`).
_NODE_POWERS = np.array([2, 3, 4, 5, 6])
_NODES = _NODE_POWERS / 4.0


def _interpolation() -> npt.NDArray[np.float64]:
    """`[20, 5]`: weights that give log tail(1/theta_m) from its values at the nodes.

    Between the nodes the Lagrange polynomial, exact for any log sum that is a polynomial of degree 4 in the
    inverse temperature (a Gaussian tail: degree 2); below theta = 0.67, where a tail hardly weighs, the line
    through the last two nodes.
    """
    weights = np.zeros((NUM_PERTURBATIONS, len(_NODES)))
    for row, inverse in zip(weights, 1.0 / _THETAS, strict=True):
        if inverse > _NODES[-1]:
            slope = (inverse - _NODES[-1]) / (_NODES[-1] - _NODES[-2])
            row[-2:] = -slope, 1.0 + slope
            continue
        for index, node in enumerate(_NODES):
            others = np.delete(_NODES, index)
            row[index] = np.prod((inverse - others) / (node - others))
    return weights


_INTERPOLATION = _interpolation()


class TemperaturePerturbation:
    """The paper's estimator in closed form: its expectation over the M draws. Not thread-safe."""

    def __init__(self) -> None:
        # Reused: fresh arrays of this size cost more in page faults than the arithmetic on them.
        self._scratch: npt.NDArray[np.float32] = np.empty((3, 0), np.float32)  # [3, vocab]

    def __call__(self, prediction: Prediction, token_id: int) -> float:
        """1 - mean_m softmax(z / theta_m)[d]."""
        return float(1.0 - self.probabilities(prediction.logits, token_id).mean())

    def probabilities(self, logits: Logits, token_id: int) -> npt.NDArray[np.float64]:
        """softmax(logits / theta_m)[token_id] for all m, `[20]`, for two passes over the vocabulary, not 20.

        With g = exp((z - max z) / 4), the sum at inverse temperature n/4 is that of g^n, a dot product of
        powers of g. On the logits of the demo's models the mean of all m is within 6e-4 of twenty softmaxes, and
        5e-5 off on average; on made-up ones with heavy tails within 5e-3.
        """
        if self._scratch.shape[1] != len(logits):
            self._scratch = np.empty((3, len(logits)), np.float32)
        g, g2, g3 = self._scratch
        best = float(logits.max())
        np.subtract(logits, np.float32(best), out=g)
        g *= np.float32(0.25)
        np.exp(g, out=g)
        head_ids = np.flatnonzero(g > np.exp(np.float32(-_HEAD_DEPTH / 4)))
        head = g[head_ids].astype(np.float64)
        g[head_ids] = 0
        np.multiply(g, g, out=g2)
        np.multiply(g2, g, out=g3)
        tails = np.array([np.dot(a, b) for a, b in ((g, g), (g2, g), (g2, g2), (g3, g2), (g3, g3))])
        # A vocabulary without a tail sums to zero; any floor far below a head of at least 1 will do.
        log_tails = np.log(np.maximum(tails, 1e-35).astype(np.float64))
        totals = (head[:, None] ** (4.0 / _THETAS)).sum(axis=0) + np.exp(_INTERPOLATION @ log_tails)
        return np.asarray(np.exp((float(logits[token_id]) - best) / _THETAS) / totals)


class SampledPerturbation:
    """The paper's estimator as it is: M draws, each unlike d with probability 1 - softmax(z / theta)[d]."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._closed_form = TemperaturePerturbation()

    def __call__(self, prediction: Prediction, token_id: int) -> float:
        """The share of the draws that differ from the draft token: a multiple of 1/20."""
        same = self._closed_form.probabilities(prediction.logits, token_id)
        return float((self._rng.random(NUM_PERTURBATIONS) >= same).mean())


def entropy(prediction: Prediction, _token_id: int) -> float:
    """The entropy of the distribution over that of a uniform one."""
    p = prediction.tempered
    # p log p with log p = z/T - log of the normaliser would need z/T again; entries that are 0 add nothing.
    nats = -float(np.dot(p, np.log(np.maximum(p, np.float32(1e-30)))))
    return min(1.0, max(0.0, nats / math.log(len(p))))


def margin(prediction: Prediction, _token_id: int) -> float:
    """1 less the distance between the two likeliest tokens."""
    p = prediction.tempered
    best = int(p.argmax())
    second = max(float(p[:best].max(initial=0)), float(p[best + 1 :].max(initial=0)))
    return 1.0 - float(p[best]) + second


def improbability(prediction: Prediction, token_id: int) -> float:
    """1 - q[d], before top-k, top-p and min-p."""
    return 1.0 - float(prediction.tempered[token_id])


# Those that need no profile, and the one that is part of it.
ESTIMATOR_NAMES = ("perturbation", "sampled-perturbation", "entropy", "margin", "improbability")

LEARNED = "learned"
# The best of those that need no profile (docs/experiments.md).
FALLBACK = "improbability"


def estimator(name: str, rng: np.random.Generator, model: LearnedModel | None = None) -> Estimator:
    """The estimator of that name; `rng` serves the sampled one, `model` is what `learned` has learned.

    Raises KeyError for an unknown name, ConfigurationError for `learned` without a model.
    """
    if name == LEARNED:
        if model is None:
            raise ConfigurationError("the learned estimator needs a profile; calibrate the pair first")
        return LearnedEstimator(model)
    table: dict[str, Estimator] = {
        "perturbation": TemperaturePerturbation(),
        "sampled-perturbation": SampledPerturbation(rng),
        "entropy": entropy,
        "margin": margin,
        "improbability": improbability,
    }
    return table[name]
