"""The report beside a profile. In: the profile, held-out scores and `beta`s. Out: one HTML file, plots inline."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from edge_agent.calibration.fitting import Column, skipped_at, threshold_for
from edge_agent.calibration.plot import STYLE, Axis, Curve, plot
from schemas.profile import Profile

_NUM_BINS = 12
_STYLE = (
    "body{font:15px sans-serif;max-width:56em;margin:2em auto;color:var(--ink);background:var(--paper)}"
    "td,th{padding:.2em .8em;text-align:right}"
) + STYLE


def write_report(path: Path, profile: Profile, scores: dict[str, Column], betas: Column) -> None:
    """Write the report; `scores` by estimator and `betas` are over the held-out part, `[n]`."""
    path.write_text(render(profile, scores, betas), encoding="utf-8")


def render(profile: Profile, scores: dict[str, Column], betas: Column) -> str:
    """The page. What stands first is what a reader came for: how much is skipped at which risk."""
    pair = profile.pair
    return "\n".join(
        [
            f"<!doctype html><meta charset=utf-8><title>Profile {profile.id}</title><style>{_STYLE}</style>",
            f"<h1>{escape(pair.draft)} → {escape(pair.target)}</h1>",
            (
                f"<p>{profile.held_out:,} held-out tokens at temperature {profile.sampling.temperature:g}, "
                f"k = {profile.k}; {profile.fitted:,} others were fitted on. Mean rejection probability "
                f"{profile.mean_beta:.3f}: what a board would diverge that never asks.</p>"
            ),
            _estimator_table(profile),
            (
                "<h2>Skipped tokens by risk</h2><p>Higher is better: fewer questions for the same divergence. "
                "The oracle knows the rejection probability of the token drawn.</p>"
            ),
            plot(_skip_curves(scores, betas), Axis("risk", 0, 0.1), Axis("share skipped", 0, 1)),
            (
                f"<h2>Does {escape(profile.default_estimator)} mean what it says?</h2><p>Each point is a "
                "twelfth of the tokens. On the diagonal, uncertainty is the rejection probability.</p>"
            ),
            plot(
                _reliability(profile, scores, betas),
                Axis("uncertainty", 0, 1),
                Axis("rejection probability", 0, 1),
            ),
            _paper(profile, scores, betas),
        ]
    )


def _skip_curves(scores: dict[str, Column], betas: Column) -> list[Curve]:
    risks = np.linspace(0.0, 0.1, 41).tolist()
    columns = {**scores, "oracle": betas}
    return [
        Curve(
            name, [(risk, threshold_for(risk, column, betas)[1]) for risk in risks], dashed=name == "oracle"
        )
        for name, column in columns.items()
    ]


def _reliability(profile: Profile, scores: dict[str, Column], betas: Column) -> list[Curve]:
    column = scores[profile.default_estimator]
    bins = np.array_split(np.argsort(column, kind="stable"), _NUM_BINS)
    points = [(float(column[b].mean()), float(betas[b].mean())) for b in bins if len(b)]
    ideal = Curve("as it should be", [(0.0, 0.0), (1.0, 1.0)], dashed=True)
    return [Curve(profile.default_estimator, points), ideal]


def _estimator_table(profile: Profile) -> str:
    risks = [start.risk for start in profile.estimators[0].thresholds]
    head = "".join(f"<th>{risk:g}</th>" for risk in risks)
    rows = [
        f"<tr><td>{escape(report.name)}</td><td>{report.auroc:.3f}</td><td>{report.correlation:.3f}</td>"
        + "".join(f"<td>{start.skipped:.1%}</td>" for start in report.thresholds)
        + "</tr>"
        for report in sorted(profile.estimators, key=lambda report: -report.auroc)
    ]
    return (
        f"<table><tr><th>estimator</th><th>AUROC</th><th>correlation</th>{head}</tr>{''.join(rows)}</table>"
        "<p>The right part: share of tokens skipped at each risk.</p>"
    )


def _paper(profile: Profile, scores: dict[str, Column], betas: Column) -> str:
    """What the paper's fixed thresholds would do on this pair."""
    fit = profile.linear
    sentences = [f"<h2>The paper's line</h2><p>beta = {fit.slope:.3f} u + {fit.intercept:.3f}."]
    for name, threshold in (("risk-averse", fit.risk_averse), ("risk-prone", fit.risk_prone)):
        if threshold is not None:
            skipped, cost = skipped_at(threshold, scores["sampled-perturbation"], betas)
            sentences.append(
                f"Its {name} threshold, {threshold:.3f}, skips {skipped:.1%} at a divergence of {cost:.4f}."
            )
    return " ".join(sentences) + "</p>"
