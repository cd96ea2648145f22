"""Samples to a profile. In: samples, whether each is held out, the pair. Out: the profile. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.calibration import fitting
from edge_agent.calibration.fitting import Column, Matrix
from edge_agent.calibration.k_rules import RuleChoice
from edge_agent.calibration.replay import Sample, replay
from edge_agent.learned import FEATURES, TABLE_STAGES, TABLES, token_features
from edge_agent.truncation import truncation
from edge_agent.uncertainty import ESTIMATOR_NAMES, LEARNED
from schemas.profile import (
    MAX_TABLE_ENTRIES,
    EstimatorReport,
    KRule,
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
    """Samples under one rule for `k`, as columns over n positions."""

    betas: Column  # [n]
    weights: Column  # [n], how much each counts (`Replayed.chance`)
    scores: Matrix  # [n, estimators]
    plain: Matrix  # [n, prediction features]
    keys: npt.NDArray[np.int64]  # [n, tables]
    held_out: npt.NDArray[np.bool_]  # [n]


def as_columns(samples: Sequence[Sample], held_out: Sequence[bool], rule: KRule) -> Columns:
    """The samples under the rule, and for each whether it is kept from the fits."""
    truncate = truncation(rule)
    replayed = [replay(sample, truncate) for sample in samples]
    return Columns(
        np.array([each.beta for each in replayed]),
        np.array([each.chance for each in replayed]),
        np.array([sample.scores for sample in samples]),
        np.array([sample.features for sample in samples]),
        np.array([sample.keys for sample in samples], np.int64),
        np.array(held_out, np.bool_),
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """Every estimator on every position, the learned one included, and what it is worth on the held-out part."""

    scores: dict[str, Column]  # [n] each
    reports: tuple[EstimatorReport, ...]
    learned: LearnedModel

    @property
    def best(self) -> EstimatorReport:
        """The one that predicts rejection best."""
        return max(self.reports, key=lambda report: report.auroc)


def judge(columns: Columns) -> Judged:
    """Fit the learned estimator, and hold all of them against the held-out part."""
    learned, learned_scores = fit_learned(columns)
    scores = dict(zip(ESTIMATOR_NAMES, columns.scores.T, strict=True)) | {LEARNED: learned_scores}
    out = columns.held_out
    betas, weights = columns.betas[out], columns.weights[out]
    reports = tuple(report_on(name, column[out], betas, weights) for name, column in scores.items())
    return Judged(scores, reports, learned)


def build_profile(
    columns: Columns, judged: Judged, pair: Pair, sampling: SamplingParameters, rules: RuleChoice
) -> Profile:
    """The profile, as yet without a codebook."""
    out = columns.held_out
    return Profile(
        pair=pair,
        sampling=sampling,
        k=rules.chosen.k,
        fitted=int((~out).sum()),
        held_out=int(out.sum()),
        mean_beta=fitting.mean(columns.betas[out], columns.weights[out]),
        estimators=judged.reports,
        default_estimator=judged.best.name,
        linear=linear_fit(
            judged.scores["sampled-perturbation"][~out], columns.betas[~out], columns.weights[~out]
        ),
        learned=judged.learned,
        k_rule=rules.chosen,
        k_rules=rules.reports,
        rejection_bytes=rules.rejection_bytes,
    )


def report_on(name: str, scores: Column, betas: Column, weights: Column) -> EstimatorReport:
    """AUROC, correlation, and the thresholds for all risks."""
    starts = [(risk, *fitting.threshold_for(risk, scores, betas, weights)) for risk in RISKS]
    return EstimatorReport(
        name=name,
        auroc=fitting.auroc(scores, betas, weights),
        correlation=fitting.correlation(scores, betas, weights),
        thresholds=tuple(
            StartingThreshold(risk=risk, threshold=min(1.0, threshold), skipped=skipped)
            for risk, threshold, skipped in starts
        ),
    )


def linear_fit(scores: Column, betas: Column, weights: Column) -> LinearFit:
    """The paper's line and where it meets beta 0 (risk-averse) and its second threshold's beta (risk-prone)."""
    slope, intercept = fitting.line(scores, betas, weights)
    rises = slope > 0
    return LinearFit(
        slope=slope,
        intercept=intercept,
        risk_averse=-intercept / slope if rises else None,
        risk_prone=(_PRONE_BETA - intercept) / slope if rises else None,
    )


def fit_learned(columns: Columns) -> tuple[LearnedModel, Column]:
    """The learned model, fitted on what is not held out, and its `u` at every position, `[n]`.

    The prediction's features first, then the tables stage by stage, each on what those before it left; last one
    logistic model over all. On the positions of the fit a key's residual leaves out the position itself, or rare
    keys would seem to know their own beta.
    """
    fit, betas, counts = ~columns.held_out, columns.betas, columns.weights
    keys = dict(zip(TABLES, columns.keys.T, strict=True))
    tables: dict[str, ResidualTable] = {}
    residuals = np.empty((len(betas), 0))  # [n, tables so far]
    for stage in TABLE_STAGES:
        left = betas - _fitted(np.column_stack([columns.plain, residuals]), betas, counts, fit)
        found = {name: _residuals(keys[name], left, counts, fit) for name in stage}
        tables |= {name: table for name, (_, table) in found.items()}
        residuals = np.column_stack([residuals, *(column for column, _ in found.values())])
    features = np.column_stack([columns.plain, token_features(columns.plain, residuals)])
    means, scales, weights = _standardised(features, betas, counts, fit)
    model = LearnedModel(
        features=FEATURES,
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(weights[1:].tolist()),
        intercept=float(weights[0]),
        **tables,
    )
    return model, fitting.sigmoid(weights[0] + (features - means) / scales @ weights[1:])


def _fitted(features: Matrix, betas: Column, counts: Column, fit: npt.NDArray[np.bool_]) -> Column:
    means, scales, weights = _standardised(features, betas, counts, fit)
    return fitting.sigmoid(weights[0] + (features - means) / scales @ weights[1:])


def _standardised(
    features: Matrix, betas: Column, counts: Column, fit: npt.NDArray[np.bool_]
) -> tuple[Column, Column, Column]:
    means, scales = features[fit].mean(axis=0), features[fit].std(axis=0)
    scales[scales < 1e-9] = 1.0  # a feature that does not vary
    return means, scales, fitting.logistic((features[fit] - means) / scales, betas[fit], counts[fit])


def _residuals(
    keys: Keys, left: Column, weights: Column, fit: npt.NDArray[np.bool_]
) -> tuple[Column, ResidualTable]:
    """Each position's residual by its key, `[n]`, and the table of those worth keeping."""
    values, index = np.unique(keys, return_inverse=True)
    own, weighed = index[fit], (weights * left)[fit]
    sums = np.bincount(own, weighed, len(values))
    counts = np.bincount(own, weights[fit], len(values))
    means = sums / (counts + _PRIOR)
    # What a key explains grows with its count and its residual; keys that round to nothing are dropped too.
    worth = np.where(np.abs(means) >= 0.0005, counts * means**2, 0.0)
    kept = np.sort(np.argsort(-worth, kind="stable")[:MAX_TABLE_ENTRIES])
    kept = kept[worth[kept] > 0]
    is_kept = np.zeros(len(values), np.bool_)
    is_kept[kept] = True
    column = np.where(is_kept, means, 0.0)[index]
    without = (sums[own] - weighed) / (counts[own] - weights[fit] + _PRIOR)
    column[fit] = np.where(is_kept[own], without, 0.0)
    thousandths = np.rint(means[kept] * 1000).astype(int)
    table = ResidualTable(keys=tuple(values[kept].tolist()), thousandths=tuple(thousandths.tolist()))
    return np.asarray(column), table
