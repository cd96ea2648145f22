"""Fits and scores. In: columns of scores and rejection probabilities, `[n]`. Out: coefficients, figures. Pure.

A "label" here is `beta`, a probability, not 0 or 1: each position counts as rejected with weight `beta` and as
accepted with `1 - beta`, which is what drawing the verdict many times would give. `weights` say how much each
position counts (see `replay`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]  # [n]
Matrix = npt.NDArray[np.float64]  # [n, features]

# Weak: it keeps a feature that says nothing from running away, and moves no figure in the third digit.
_RIDGE = 1e-4
# Newton's method for a convex loss settles in under ten steps; a bound, should rounding keep it from it.
_MAX_STEPS = 30


def auroc(scores: Column, betas: Column, weights: Column) -> float:
    """The probability that a rejected position scores above an accepted one; ties count half. 0.5 if undefined."""
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    rejected = np.bincount(group, (weights * betas)[order])
    accepted = np.bincount(group, (weights * (1.0 - betas))[order])
    below = np.cumsum(accepted) - accepted / 2
    total = float(rejected.sum() * accepted.sum())
    return float(rejected @ below) / total if total > 0 else 0.5


def correlation(scores: Column, betas: Column, weights: Column) -> float:
    """Pearson's; 0 where one of the two does not vary."""
    if len(scores) < 2 or scores.std() == 0 or betas.std() == 0:
        return 0.0
    (own, both), (_, other) = np.cov(scores, betas, aweights=weights)
    return float(both / np.sqrt(own * other))


def mean(values: npt.ArrayLike, weights: Column) -> float:
    """The mean of what counts; 0 where nothing does. Never beyond the values, which rounding alone might reach."""
    total = float(weights.sum())
    if total <= 0:
        return 0.0
    each = np.asarray(values, np.float64)
    return float(np.clip(weights @ each / total, each.min(), each.max()))


def threshold_for(risk: float, scores: Column, betas: Column, weights: Column) -> tuple[float, float]:
    """The highest threshold whose skipped tokens cost at most `risk` a token, and the share it skips.

    All positions of one score are skipped or none; (-1, 0) where not even the surest may be.
    Example, all weights 1: scores .1 .2 .3, betas 0 0 .3, risk .05: threshold .2 and two thirds; .3 would cost .1.
    """
    values, group = np.unique(scores, return_inverse=True)
    cost = np.cumsum(np.bincount(group, weights * betas)) / weights.sum()
    num_kept = int(np.searchsorted(cost, risk + 1e-12, side="right"))
    if num_kept == 0:
        return -1.0, 0.0
    threshold = float(values[num_kept - 1])
    return threshold, mean(scores <= threshold, weights)


def skipped_at(threshold: float, scores: Column, betas: Column, weights: Column) -> tuple[float, float]:
    """The share skipped at a threshold, and what that costs (mean of skip * beta a token)."""
    skips = scores <= threshold
    return mean(skips, weights), mean(skips * betas, weights)


def line(scores: Column, betas: Column, weights: Column) -> tuple[float, float]:
    """Slope and intercept of the least-squares line `beta = a * u + b` (CU-HLM, arXiv:2505.11788)."""
    if len(scores) < 2 or scores.std() == 0:
        return 0.0, mean(betas, weights)
    slope, intercept = np.polyfit(scores, betas, 1, w=np.sqrt(weights))
    return float(slope), float(intercept)


def logistic(features: Matrix, betas: Column, weights: Column) -> Column:
    """Coefficients `[1 + features]`, the intercept first, that make `betas` likeliest (Newton's method)."""
    design = np.column_stack([np.ones(len(features)), features])
    penalty = np.full(design.shape[1], _RIDGE * len(design))
    penalty[0] = 1e-9
    found = np.zeros(design.shape[1])
    for _ in range(_MAX_STEPS):
        p = sigmoid(design @ found)
        gradient = design.T @ (weights * (p - betas)) + penalty * found
        curvature = (design * (weights * p * (1 - p) + 1e-9)[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        found -= np.clip(step, -4.0, 4.0)  # far from the optimum Newton's step may overshoot
        if np.abs(step).max() < 1e-7:
            break
    return np.asarray(found)


def sigmoid(logits: Column) -> Column:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -40.0, 40.0))))
