"""The report beside a profile. In: the profile, held-out scores and `beta`s. Out: one HTML file, plots inline."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np

from edge_agent.calibration.fitting import Column, skipped_at, threshold_for
from schemas.profile import Profile

_WIDTH, _HEIGHT, _MARGIN = 420, 300, 44
_COLORS = ("#1b6ca8", "#c8553d", "#4a8f4a", "#8a5aa8", "#b8860b", "#555555")
_NUM_BINS = 12
# A curve through few points shows where they are.
_MAX_MARKED = 12
_STYLE = "body{font:15px sans-serif;max-width:56em;margin:2em auto}td,th{padding:.2em .8em;text-align:right}"

Curve = tuple[str, list[tuple[float, float]]]


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
            plot(_skip_curves(scores, betas), "risk", "share skipped", x_max=0.1),
            (
                f"<h2>Does {escape(profile.default_estimator)} mean what it says?</h2><p>Each point is a "
                "twelfth of the tokens. On the diagonal, uncertainty is the rejection probability.</p>"
            ),
            plot(_reliability(profile, scores, betas), "uncertainty", "rejection probability", x_max=1.0),
            _paper(profile, scores, betas),
        ]
    )


def plot(curves: Iterable[Curve], x_label: str, y_label: str, *, x_max: float) -> str:
    """Curves over [0, x_max] and [0, 1] as SVG."""
    parts = [f'<svg width="{_WIDTH + 190}" height="{_HEIGHT}" font-size="12" font-family="sans-serif">']
    for step in range(6):
        x, y = _place(x_max * step / 5, step / 5, x_max)
        left, bottom = _place(0, 0, x_max)
        right, top = _place(x_max, 1, x_max)
        parts += [
            f'<path d="M{left} {y}H{right}M{x} {bottom}V{top}" stroke="#ddd"/>',
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{step / 5:.1f}</text>',
            f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{x_max * step / 5:.2g}</text>',
        ]
    for index, (name, points) in enumerate(curves):
        color = _COLORS[index % len(_COLORS)]
        line = " ".join(f"{x},{y}" for x, y in (_place(px, py, x_max) for px, py in points))
        parts += [
            f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>',
            f'<text x="{_WIDTH}" y="{24 + 18 * index}" fill="{color}">{escape(name)}</text>',
        ]
        if len(points) <= _MAX_MARKED:
            dots = (_place(px, py, x_max) for px, py in points)
            parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>' for x, y in dots]
    parts += [
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>',
        (
            f'<text x="12" y="{_HEIGHT / 2}" transform="rotate(-90 12 {_HEIGHT / 2})" text-anchor="middle">'
            f"{escape(y_label)}</text></svg>"
        ),
    ]
    return "".join(parts)


def _place(x: float, y: float, x_max: float) -> tuple[float, float]:
    """Data to pixels; what lies outside stays on the edge."""
    share_x, share_y = min(1.0, max(0.0, x / x_max)), min(1.0, max(0.0, y))
    inner_x, inner_y = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    return round(_MARGIN + share_x * inner_x, 1), round(_HEIGHT - _MARGIN - share_y * inner_y, 1)


def _skip_curves(scores: dict[str, Column], betas: Column) -> list[Curve]:
    risks = np.linspace(0.0, 0.1, 41).tolist()
    columns = {**scores, "oracle": betas}
    return [
        (name, [(risk, threshold_for(risk, column, betas)[1]) for risk in risks])
        for name, column in columns.items()
    ]


def _reliability(profile: Profile, scores: dict[str, Column], betas: Column) -> list[Curve]:
    column = scores[profile.default_estimator]
    bins = np.array_split(np.argsort(column, kind="stable"), _NUM_BINS)
    points = [(float(column[b].mean()), float(betas[b].mean())) for b in bins if len(b)]
    return [(profile.default_estimator, points), ("as it should be", [(0.0, 0.0), (1.0, 1.0)])]


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
