"""The report beside a profile. In: what calibration found out. Out: one HTML file, plots inline.

It is made to be read in two minutes: what it comes to stands first, and each heading says what a figure shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from edge_agent.calibration import fitting
from edge_agent.calibration.findings import Findings
from edge_agent.calibration.fitting import Column, skipped_at, threshold_for
from edge_agent.calibration.k_rules import FIXED_KS
from edge_agent.calibration.plot import STYLE, Axis, Curve, plot
from schemas.profile import EstimatorReport, KRule, KRuleReport, Profile

_NUM_BINS = 12
# What the text speaks of: the risk that agents hold by default.
_RISK = 0.02
_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:46em;margin:2em auto;padding:0 1em;"
    "color:var(--ink);background:var(--paper)}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9em}"
    "td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid var(--grid)}"
    "td:first-child,th:first-child{text-align:left}.chosen{font-weight:bold}"
) + STYLE


def write_report(path: Path, findings: Findings) -> None:
    """Write the report."""
    path.write_text(render(findings), encoding="utf-8")


def render(findings: Findings) -> str:
    """The page."""
    profile, columns = findings.profile, findings.columns
    out = columns.held_out
    betas, weights = columns.betas[out], columns.weights[out]
    scores = {name: column[out] for name, column in findings.judged.scores.items()}
    title = f"{escape(profile.pair.draft)} → {escape(profile.pair.target)}"
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            "<meta name=viewport content='width=device-width, initial-scale=1'>",
            f"<title>Calibration: {title}</title><style>{_STYLE}</style><h1>{title}</h1>",
            _in_short(findings),
            _skipping(profile, scores, betas, weights),
            _reliability(profile, scores, betas, weights),
            _sending(profile),
            _details(profile, scores, betas, weights),
            "</html>",
        ]
    )


def _in_short(findings: Findings) -> str:
    profile, saved = findings.profile, findings.saving
    best = _best(profile)
    kept = (
        f"Uncertainty by <b>{escape(best.name)}</b>: {_skipped(best):.0%} of the tokens are kept without asking "
        f"at a divergence of {_RISK:g} a token."
    )
    points = [kept]
    chosen = _chosen(profile)
    if chosen is not None:
        points.append(
            f"A token in doubt sends {_words(chosen.rule)}: {chosen.mean_k:.1f} tokens and "
            f"<b>{chosen.frame_bytes:.1f} bytes</b> a frame, its run included; {1 - chosen.rejected:.0%} are accepted."
        )
    if saved is not None:
        verdict = "The codebook" if saved.pays else "A codebook would not pay, and there is none: it"
        points.append(
            f"{verdict} takes the prompt of an opening from {saved.opening[0]:.0f} to {saved.opening[1]:.0f} bytes "
            f"and a draft from {saved.draft[0]:.1f} to {saved.draft[1]:.1f}."
        )
    points.append(
        f"A board that never asked would diverge by {profile.mean_beta:.3f} a token: the mean rejection probability."
    )
    measured = (
        f"<p>{profile.held_out:,} held-out tokens at temperature {profile.sampling.temperature:g}; "
        f"{profile.fitted:,} others were fitted on.</p>"
    )
    return f"<ul>{''.join(f'<li>{point}</li>' for point in points)}</ul>{measured}"


def _skipping(profile: Profile, scores: dict[str, Column], betas: Column, weights: Column) -> str:
    risks = np.linspace(0.0, 0.1, 41).tolist()
    curves = [
        Curve(
            name, [(r, threshold_for(r, column, betas, weights)[1]) for r in risks], dashed=name == "oracle"
        )
        for name, column in {**scores, "oracle": betas}.items()
    ]
    best = _best(profile)
    return (
        f"<h2>Skipped by risk: {_skipped(best):.0%} at {_RISK:g} with {escape(best.name)}</h2>"
        "<p>Higher is better: fewer questions for the same divergence. No estimator can do better than the "
        "oracle, which knows the rejection probability of the token drawn.</p>"
        + plot(curves, Axis("risk", 0, 0.1), Axis("share skipped", 0, 1), marks=[("default risk", _RISK)])
    )


def _reliability(profile: Profile, scores: dict[str, Column], betas: Column, weights: Column) -> str:
    column = scores[profile.default_estimator]
    bins = [each for each in np.array_split(np.argsort(column, kind="stable"), _NUM_BINS) if len(each)]
    points = [(fitting.mean(column[b], weights[b]), fitting.mean(betas[b], weights[b])) for b in bins]
    gap = float(np.mean([abs(x - y) for x, y in points]))
    curves = [
        Curve(profile.default_estimator, points),
        Curve("as it should be", [(0.0, 0.0), (1.0, 1.0)], dashed=True),
    ]
    return (
        f"<h2>Does {escape(profile.default_estimator)} mean what it says? Off by {gap:.3f} on average</h2>"
        "<p>Each corner is a twelfth of the tokens. On the diagonal, uncertainty is the rejection probability. "
        "The controller does not rely on it: it holds the risk by the audit.</p>"
        + plot(curves, Axis("uncertainty", 0, 1), Axis("rejection probability", 0, 1))
    )


def _sending(profile: Profile) -> str:
    """Bytes and acceptance against `k`, with the rule in use and CU-HLM's."""
    chosen = _chosen(profile)
    if chosen is None:
        return "<h2>Nothing is in doubt here, so no rule for k was measured</h2>"
    fixed = [report for report in profile.k_rules if report.rule.name == "fixed"]
    others = [report for report in profile.k_rules if report.rule.name.startswith("cu-hlm")]
    x = Axis("k, on average", 1, max(FIXED_KS), ticks=(1, 2, 4, 8, 16, 32), log=True)
    most_bytes = max(report.frame_bytes for report in [*fixed, *others, chosen])
    of_bytes = [(report, report.frame_bytes) for report in (*fixed, chosen, *others)]
    accepted = [(report, 1 - report.rejected) for report in (*fixed, chosen, *others)]
    return (
        f"<h2>Bytes by k: {chosen.frame_bytes:.1f} a token in doubt</h2>"
        "<p>Lower is better. Whole frames, run and audit included.</p>"
        + plot(_by_k(of_bytes, chosen), x, Axis("bytes a frame", 0, float(np.ceil(most_bytes / 20) * 20)))
        + f"<h2>Acceptance by k: {1 - chosen.rejected:.1%}</h2>"
        "<p>Higher is better. Where the curve is flat, more tokens buy nothing.</p>"
        + plot(_by_k(accepted, chosen), x, Axis("share accepted", 0, 1))
        + _rule_table(profile, chosen)
    )


def _by_k(values: Sequence[tuple[KRuleReport, float]], chosen: KRuleReport) -> list[Curve]:
    """A curve over the fixed `k`s, and a dot for each other rule."""
    fixed = [(report.mean_k, value) for report, value in values if report.rule.name == "fixed"]
    dots = [(report, value) for report, value in values if report is chosen or report.rule.name != "fixed"]
    return [
        Curve("a fixed k", fixed),
        *(
            Curve(_name(report.rule) + (", in use" if report is chosen else ""), [(report.mean_k, value)])
            for report, value in dots
        ),
    ]


def _rule_table(profile: Profile, chosen: KRuleReport) -> str:
    rows = []
    for report in sorted(profile.k_rules, key=lambda report: report.cost):
        cells = (
            _name(report.rule),
            f"{report.skipped:.1%}",
            f"{report.mean_k:.1f}",
            f"{report.frame_bytes:.1f}",
            f"{1 - report.rejected:.1%}",
            f"{report.cost:.1f}",
        )
        rows.append(_row(cells, is_chosen=report is chosen))
    heads = ("rule", "skipped", "mean k", "bytes", "accepted", "cost")
    return (
        "<h2>All rules by what they cost</h2><p>Cost, in bytes a token: of those that are not skipped, the frame's "
        f"bytes, and {profile.rejection_bytes:g} for a rejection. The rule in use was chosen on the fitted part.</p>"
        + _table(heads, rows)
    )


def _details(profile: Profile, scores: dict[str, Column], betas: Column, weights: Column) -> str:
    risks = [start.risk for start in profile.estimators[0].thresholds]
    rows = [
        _row(
            (
                report.name,
                f"{report.auroc:.3f}",
                f"{report.correlation:.3f}",
                *(f"{start.skipped:.1%}" for start in report.thresholds),
            ),
            is_chosen=report.name == profile.default_estimator,
        )
        for report in sorted(profile.estimators, key=lambda report: -report.auroc)
    ]
    heads = ("estimator", "AUROC", "correlation", *(f"{risk:g}" for risk in risks))
    return (
        "<h2>All estimators</h2><p>The right part: share of tokens skipped at each risk.</p>"
        + _table(heads, rows)
        + _paper(profile, scores, betas, weights)
    )


def _paper(profile: Profile, scores: dict[str, Column], betas: Column, weights: Column) -> str:
    """What the paper's fixed thresholds would do on this pair."""
    fit = profile.linear
    sentences = [f"<h2>The paper's line</h2><p>beta = {fit.slope:.3f} u + {fit.intercept:.3f}."]
    for name, threshold in (("risk-averse", fit.risk_averse), ("risk-prone", fit.risk_prone)):
        if threshold is not None:
            skipped, cost = skipped_at(threshold, scores["sampled-perturbation"], betas, weights)
            sentences.append(
                f"Its {name} threshold, {threshold:.3f}, skips {skipped:.1%} at a divergence of {cost:.4f}."
            )
    return " ".join(sentences) + "</p>"


def _best(profile: Profile) -> EstimatorReport:
    return next(report for report in profile.estimators if report.name == profile.default_estimator)


def _skipped(report: EstimatorReport) -> float:
    return next(start.skipped for start in report.thresholds if start.risk == _RISK)


def _chosen(profile: Profile) -> KRuleReport | None:
    return next((report for report in profile.k_rules if report.rule == profile.k_rule), None)


def _words(rule: KRule) -> str:
    """What a rule sends, in words."""
    if rule.name == "cost":
        return f"what has at least {rule.least_share:.1%} of the probability, up to {rule.k} tokens"
    if rule.name == "cu-hlm-online":
        return f"all but {rule.max_left_out:.1%} of the probability, up to {rule.k} tokens"
    return f"the {rule.k} likeliest tokens"


def _name(rule: KRule) -> str:
    if rule.name == "cost":
        return f"cost, share {rule.least_share:g}, k ≤ {rule.k}"
    return rule.name if rule.name == "cu-hlm-online" else f"{rule.name}, k = {rule.k}"


def _table(heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _row(cells: Sequence[str], *, is_chosen: bool) -> str:
    style = " class=chosen" if is_chosen else ""
    return f"<tr{style}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
