"""What the figures come to, in sentences. In: rows by method. Out: lines for the page. Pure.

The marks to reach: at the papers' point (97.4 % of the target's accuracy kept) at least 74.8 % of the tokens skipped, and
more than by the papers' method; at risk 0.02 at least 99 % kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from benchmarks.paper import methods
from benchmarks.paper.counts import Sums

Rows = Mapping[str, Sums]

PAPER_KEPT, PAPER_SKIPPED = 0.974, 0.748
DEFAULT_RISK, DEFAULT_KEPT = 0.02, 0.99

# The curves of the plots, and whose settings are compared at the papers' point.
FAMILIES: dict[str, Callable[[str], bool]] = {
    "ours, held to a risk": lambda name: name.startswith("ours, risk"),
    "ours, fixed thresholds": lambda name: name.startswith("ours, threshold"),
    "u-hlm": lambda name: name.startswith("u-hlm"),
    "cu-hlm": lambda name: name.startswith("cu-hlm"),
}


def on_calls(rows: Rows) -> list[str]:
    """Where the marks stand on the calls."""
    target = rows[methods.TARGET.name]
    if not target.right:
        return ["The target model got no call right: there is nothing to keep."]
    lines = [
        f"The target model alone gets {target.accuracy:.1%} of {target.answers} calls right{_edge(rows)}."
    ]
    ours = _best(rows, target, lambda name: name.startswith("ours"))
    theirs = _best(rows, target, lambda name: name.startswith(("u-hlm", "cu-hlm")))
    lines.append(
        f"At the papers' point ({PAPER_KEPT:.1%} kept): ours {_skipping(ours, rows)}; theirs {_skipping(theirs, rows)}. "
        + _verdict(rows, ours, theirs)
    )
    at_default = rows.get(methods.at_risk(DEFAULT_RISK).name)
    if at_default is not None:
        lines.append(_default_risk(at_default, target))
    return lines


def on_links(by_link: Mapping[str, Rows]) -> list[str]:
    """How fast, against full upload and against the papers' best."""
    lines = []
    ours_name, hlm_name = methods.at_risk(DEFAULT_RISK).name, methods.HLM.name
    for link, rows in by_link.items():
        theirs = {name: sums for name, sums in rows.items() if name.startswith(("u-hlm", "cu-hlm"))}
        if ours_name not in rows or hlm_name not in rows or not theirs:
            continue
        ours, full = rows[ours_name], rows[hlm_name]
        best = max(theirs, key=lambda name: theirs[name].tokens_per_s)
        lines.append(
            f"{link}: at risk {DEFAULT_RISK:g} {ours.tokens_per_s:,.3g} tokens a second, "
            f"{ours.tokens_per_s / full.tokens_per_s:,.3g} times full upload and "
            f"{ours.tokens_per_s / theirs[best].tokens_per_s:,.3g} times the papers' fastest ({best}), with "
            f"{ours.per_token('bytes_up'):,.3g} bytes up a token against {theirs[best].per_token('bytes_up'):,.3g}."
        )
    return lines


def _best(rows: Rows, target: Sums, is_meant: Callable[[str], bool]) -> str | None:
    """The setting that skips most among those that keep the papers' share of the accuracy."""
    fitting = [
        name
        for name, sums in rows.items()
        if is_meant(name) and sums.accuracy / target.accuracy >= PAPER_KEPT
    ]
    return max(fitting, key=lambda name: rows[name].per_token("skipped"), default=None)


def _edge(rows: Rows) -> str:
    edge = rows.get(methods.EDGE.name)
    return "" if edge is None else f", the draft model alone {edge.accuracy:.1%}"


def _skipping(name: str | None, rows: Rows) -> str:
    if name is None:
        return "no setting that was measured keeps as much"
    sums = rows[name]
    return (
        f"skips {sums.per_token('skipped'):.1%} (`{name}`; {1 - sums.per_token('sent'):.1%} without an upload, "
        f"divergence {sums.divergence or 0:.4f})"
    )


def _verdict(rows: Rows, ours: str | None, theirs: str | None) -> str:
    """Reached or not, and by how much."""
    if ours is None:
        return "**Not reached.**"
    skipped = rows[ours].per_token("skipped")
    other = 0.0 if theirs is None else rows[theirs].per_token("skipped")
    parts = [
        f"The papers' {PAPER_SKIPPED:.1%} "
        + (
            "is reached"
            if skipped >= PAPER_SKIPPED
            else f"is missed by {100 * (PAPER_SKIPPED - skipped):.1f} points"
        ),
        "ours skips more than theirs here"
        if skipped > other
        else f"theirs skips {100 * (other - skipped):.1f} points more",
    ]
    return f"**{'; '.join(parts)}.**"


def _default_risk(sums: Sums, target: Sums) -> str:
    """What the default risk keeps, and why not more."""
    kept = sums.accuracy / target.accuracy
    length = sums.tokens / sums.answers
    said = (
        f"At risk {DEFAULT_RISK:g}, {kept:.1%} is kept, {sums.per_token('skipped'):.1%} skipped, divergence "
        f"{sums.divergence or 0:.4f}. "
    )
    if kept >= DEFAULT_KEPT:
        return said + f"**The {DEFAULT_KEPT:.0%} that this risk is to keep is reached.**"
    allowed = DEFAULT_RISK * length
    return said + (
        f"**The {DEFAULT_KEPT:.0%} is missed by {100 * (DEFAULT_KEPT - kept):.1f} points, and on calls alone must be:** a call "
        f"has {length:.0f} tokens, one wrong token spoils it, and a divergence of {DEFAULT_RISK:g} a token allows "
        f"{allowed:.2f} tokens a call that the target would have rejected, if all of it is used. If each spoils its call, "
        f"{math.exp(-allowed):.0%} is kept; for {DEFAULT_KEPT:.0%} the divergence must be "
        f"{-math.log(DEFAULT_KEPT) / length:.5f}. The board uses what it is allowed: set the risk by the length of what "
        "must be right as a whole."
    )
