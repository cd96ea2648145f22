"""Samples to a profile. In: samples, whether each is held out, the pair. Out: the profile. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.calibration import fitting
from edge_agent.calibration.collecting import Sample
from edge_agent.calibration.fitting import Column, Matrix
from edge_agent.learned import FEATURES, TABLES, table_keys, token_features
from edge_agent.uncertainty import ESTIMATOR_NAMES, LEARNED
from schemas.profile import (
    MAX_TABLE_ENTRIES,
    EstimatorReport,
    LearnedModel,
    LinearFit,
    Pair,
    Profile,
    ResidualTable,
    StartingThreshold,
)
from schemas.sampling import SamplingParameters

RISKS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1)
# The paper's second threshold, 0.8117 on its line 0.815 u - 0.066, stands where beta is 0.5955. Its derivation
# rests on its own pair; what carries over is the rejection probability that it accepts.
_PRONE_BETA = 0.815 * 0.8117 - 0.066
# A key's residual is drawn towards 0 as if this many positions without any had been seen.
_PRIOR = 20.0

Keys = npt.NDArray[np.int64]  # [n]


@dataclass(frozen=True, eq=False)
class Columns:
    """Samples as columns over n positions."""

    betas: Column  # [n]
    scores: Matrix  # [n, estimators]
    plain: Matrix  # [n, prediction features]
    keys: npt.NDArray[np.int64]  # [n, tables]
    held_out: npt.NDArray[np.bool_]  # [n]


def as_columns(samples: Sequence[Sample], held_out: Sequence[bool]) -> Columns:
    """The samples, and for each whether it is kept from the fits."""
    return Columns(
        np.array([sample.beta for sample in samples]),
        np.array([sample.scores for sample in samples]),
        np.array([sample.features for sample in samples]),
        np.array([table_keys(s.token_id, s.previous_ids) for s in samples], np.int64),
        np.array(held_out, np.bool_),
    )


def build_profile(
    columns: Columns, pair: Pair, sampling: SamplingParameters, k: int, dictionary: str | None = None
) -> tuple[Profile, dict[str, Column]]:
    """The profile, and each estimator's scores on the held-out part, `[held out]`, for the report."""
    held_out = columns.held_out
    learned, learned_scores = fit_learned(columns)
    names = dict(zip(ESTIMATOR_NAMES, columns.scores.T, strict=True))
    scores = {name: column[held_out] for name, column in names.items()}
    scores[LEARNED] = learned_scores[held_out]
    betas = columns.betas[held_out]
    reports = tuple(report_on(name, column, betas) for name, column in scores.items())
    sampled = names["sampled-perturbation"][~held_out]
    profile = Profile(
        pair=pair,
        sampling=sampling,
        k=k,
        fitted=int((~held_out).sum()),
        held_out=int(held_out.sum()),
        mean_beta=float(betas.mean()),
        estimators=reports,
        default_estimator=max(reports, key=lambda report: report.auroc).name,
        linear=linear_fit(sampled, columns.betas[~held_out]),
        learned=learned,
        dictionary=dictionary,
    )
    return profile, scores


def report_on(name: str, scores: Column, betas: Column) -> EstimatorReport:
    """AUROC, correlation, and the thresholds for all risks."""
    starts = [(risk, *fitting.threshold_for(risk, scores, betas)) for risk in RISKS]
    return EstimatorReport(
        name=name,
        auroc=fitting.auroc(scores, betas),
        correlation=fitting.correlation(scores, betas),
        thresholds=tuple(
            StartingThreshold(risk=risk, threshold=min(1.0, threshold), skipped=skipped)
            for risk, threshold, skipped in starts
        ),
    )


def linear_fit(scores: Column, betas: Column) -> LinearFit:
    """The paper's line and where it meets beta 0 (risk-averse) and its second threshold's beta (risk-prone)."""
    slope, intercept = fitting.line(scores, betas)
    rises = slope > 0
    return LinearFit(
        slope=slope,
        intercept=intercept,
        risk_averse=-intercept / slope if rises else None,
        risk_prone=(_PRONE_BETA - intercept) / slope if rises else None,
    )


def fit_learned(columns: Columns) -> tuple[LearnedModel, Column]:
    """The learned model, fitted on what is not held out, and its `u` at every position, `[n]`.

    In three steps, each on what the one before left: the prediction's features; tables of draft token and the
    two before; the table of pairs. Then one logistic model over all. On the positions of the fit a key's
    residual leaves out the position itself, or rare keys would seem to know their own beta.
    """
    fit, betas = ~columns.held_out, columns.betas
    first = _fitted(columns.plain, betas, fit)
    singles = [_residuals(columns.keys[:, index], betas - first, fit) for index in range(3)]
    second = _fitted(np.column_stack([columns.plain, *(column for column, _ in singles)]), betas, fit)
    pairs = _residuals(columns.keys[:, 3], betas - second, fit)
    residuals = np.column_stack([column for column, _ in (*singles, pairs)])  # [n, tables]
    features = np.column_stack([columns.plain, token_features(columns.plain, residuals)])
    means, scales, weights = _standardised(features, betas, fit)
    tables = dict(zip(TABLES, (table for _, table in (*singles, pairs)), strict=True))
    model = LearnedModel(
        features=FEATURES,
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(weights[1:].tolist()),
        intercept=float(weights[0]),
        **tables,
    )
    return model, fitting.sigmoid(weights[0] + (features - means) / scales @ weights[1:])


def _fitted(features: Matrix, betas: Column, fit: npt.NDArray[np.bool_]) -> Column:
    means, scales, weights = _standardised(features, betas, fit)
    return fitting.sigmoid(weights[0] + (features - means) / scales @ weights[1:])


def _standardised(
    features: Matrix, betas: Column, fit: npt.NDArray[np.bool_]
) -> tuple[Column, Column, Column]:
    means, scales = features[fit].mean(axis=0), features[fit].std(axis=0)
    scales[scales < 1e-9] = 1.0  # a feature that does not vary
    return means, scales, fitting.logistic((features[fit] - means) / scales, betas[fit])


def _residuals(keys: Keys, left: Column, fit: npt.NDArray[np.bool_]) -> tuple[Column, ResidualTable]:
    """Each position's residual by its key, `[n]`, and the table of those worth keeping."""
    values, index = np.unique(keys, return_inverse=True)
    sums = np.bincount(index[fit], left[fit], len(values))
    counts = np.bincount(index[fit], minlength=len(values))
    means = sums / (counts + _PRIOR)
    # What a key explains grows with its count and its residual; keys that round to nothing are dropped too.
    worth = np.where(np.abs(means) >= 0.0005, counts * means**2, 0.0)
    kept = np.sort(np.argsort(-worth, kind="stable")[:MAX_TABLE_ENTRIES])
    kept = kept[worth[kept] > 0]
    is_kept = np.zeros(len(values), np.bool_)
    is_kept[kept] = True
    column = np.where(is_kept, means, 0.0)[index]
    own = index[fit]
    without = (sums[own] - left[fit]) / (counts[own] - 1 + _PRIOR)
    column[fit] = np.where(is_kept[own], without, 0.0)
    thousandths = np.rint(means[kept] * 1000).astype(int)
    table = ResidualTable(keys=tuple(values[kept].tolist()), thousandths=tuple(thousandths.tolist()))
    return np.asarray(column), table
