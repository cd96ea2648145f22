"""What the figures come to, in sentences. In: rows by method. Out: lines for the page. Pure.

The marks to reach: at the papers' point (97.4 % of the target's accuracy kept) at least 74.8 % of the tokens
skipped, and more than by the papers' method; at risk 0.02 at least 99 % kept.
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
    "ours": lambda name: name.startswith("ours risk"),
    "u-hlm": lambda name: name.startswith("u-hlm"),
    "cu-hlm": lambda name: name.startswith("cu-hlm"),
}


def on_calls(rows: Rows) -> list[str]:
    """Where the marks stand on the calls."""
    target = rows[methods.TARGET.name]
    if not target.right:
        return ["The target model got no call right: there is nothing to keep."]
    edge = rows.get(methods.EDGE.name)
    alone = "" if edge is None else f", the draft model alone {edge.accuracy:.1%}"
    noise = math.sqrt(2 * (1 - target.accuracy) / (target.accuracy * target.answers))
    lines = [
        (
            f"The target model alone gets {target.accuracy:.1%} of {target.answers} calls right{alone}. Standard "
            f"error of a share kept near 100%: at most {noise:.1%}."
        ),
        *_at_the_papers_point(rows, target),
    ]
    at_default = rows.get(methods.at_risk(DEFAULT_RISK).name)
    if at_default is not None:
        lines += _at_the_default_risk(at_default, target)
    return lines


def on_links(by_link: Mapping[str, Rows]) -> list[str]:
    """How fast and how cheap, against full upload, the papers' fastest and the target streamed."""
    ours_name = methods.at_risk(DEFAULT_RISK).name
    return [
        line
        for link, rows in by_link.items()
        if ours_name in rows
        if (line := _on_link(link, rows[ours_name], rows)) is not None
    ]


def _at_the_papers_point(rows: Rows, target: Sums) -> list[str]:
    ours = _best(rows, target, "ours")
    theirs = _best(rows, target, "u-hlm", "cu-hlm")
    said = f"At the papers' point, {PAPER_KEPT:.1%} kept, of the settings that were measured"
    if not any(name.startswith("ours") for name in rows):
        return []
    if ours is None:
        return [f"{said} none of ours keeps as much. **Not reached.**"]
    mine = rows[ours]
    lines = [f"{said} ours skips most with `{ours}`: {_skipping(mine)}. **{_against_the_paper(mine)}**"]
    if theirs is None:
        return [*lines, "No setting of the papers' methods that was measured keeps as much."]
    other = rows[theirs]
    return [
        *lines,
        f"Theirs skips most with `{theirs}`: {_skipping(other)}. **{_against_theirs(mine, other)}**",
    ]


def _best(rows: Rows, target: Sums, *beginnings: str) -> str | None:
    """The setting that skips most among those that keep the papers' share of the accuracy."""
    fitting = [
        name
        for name, sums in rows.items()
        if name.startswith(beginnings) and sums.accuracy / target.accuracy >= PAPER_KEPT
    ]
    return max(fitting, key=lambda name: rows[name].per_token("skipped"), default=None)


def _skipping(sums: Sums) -> str:
    return (
        f"{sums.per_token('skipped'):.1%} of the tokens skipped, {_no_upload(sums):.1%} without an upload, "
        f"divergence {sums.divergence or 0:.4f}"
    )


def _no_upload(sums: Sums) -> float:
    return 1 - sums.per_token("sent")


def _against_the_paper(sums: Sums) -> str:
    skipped = sums.per_token("skipped")
    if skipped >= PAPER_SKIPPED:
        return f"The papers' {PAPER_SKIPPED:.1%} is reached."
    missed = f"The papers' {PAPER_SKIPPED:.1%} is missed by {_points(PAPER_SKIPPED - skipped)}"
    if _no_upload(sums) >= PAPER_SKIPPED:
        return f"{missed}, but reached if bonus tokens count, which cause no upload either."
    return f"{missed}."


def _against_theirs(mine: Sums, other: Sums) -> str:
    """By tokens skipped and by tokens without an upload, which differ by our bonus tokens."""
    skipped = mine.per_token("skipped") - other.per_token("skipped")
    quiet = _no_upload(mine) - _no_upload(other)
    more = f"Ours skips {_points(abs(skipped))} {'more' if skipped > 0 else 'less'}"
    return f"{more} and leaves {_points(abs(quiet))} {'more' if quiet > 0 else 'less'} without an upload."


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _at_the_default_risk(sums: Sums, target: Sums) -> list[str]:
    """What the default risk keeps, and why not more."""
    kept = sums.accuracy / target.accuracy
    said = f"At risk {DEFAULT_RISK:g}, {kept:.1%} is kept: {_skipping(sums)}."
    if kept >= DEFAULT_KEPT:
        return [f"{said} **The {DEFAULT_KEPT:.0%} that is asked of it is reached.**"]
    length = sums.tokens / sums.answers
    allowed = DEFAULT_RISK * length
    return [
        f"{said} **The {DEFAULT_KEPT:.0%} that is asked of it is missed by {_points(DEFAULT_KEPT - kept)}.**",
        (
            f"Why: a call has {length:.0f} tokens and one wrong token spoils it. A divergence of {DEFAULT_RISK:g} a "
            f"token allows {allowed:.2f} tokens a call that the target would have rejected. The controller uses "
            f"what it is allowed, and if each of them spoils its call, {math.exp(-allowed):.0%} is kept. Keeping "
            f"{DEFAULT_KEPT:.0%} takes a divergence of {-math.log(DEFAULT_KEPT) / length:.5f} a token. So set the risk "
            "by the length of what must be right as a whole."
        ),
    ]


def _on_link(link: str, ours: Sums, rows: Rows) -> str | None:
    theirs = {name: sums for name, sums in rows.items() if name.startswith(("u-hlm", "cu-hlm"))}
    full, streamed = rows.get(methods.HLM.name), rows.get(methods.TARGET.name)
    as_close = [name for name in theirs if (theirs[name].divergence or 0) <= (ours.divergence or 0)]
    if full is None or streamed is None:
        return None
    against = {"full upload": full, "the target streamed": streamed}
    if as_close:
        best = max(as_close, key=lambda name: theirs[name].tokens_per_s)
        against[f"the papers' fastest that diverges no more ({best})"] = theirs[best]
    speeds = ", ".join(
        f"{ours.tokens_per_s / other.tokens_per_s:,.3g} times {name}" for name, other in against.items()
    )
    none = "" if as_close else " (none of the papers' skipping methods diverges as little)"
    return (
        f"{link}: at risk {DEFAULT_RISK:g} {ours.tokens_per_s:,.3g} tokens a second, {speeds}{none}; "
        f"{ours.per_token('bytes_up'):,.3g} bytes up and {ours.per_token('bytes_down'):,.3g} down a token, against "
        f"{streamed.per_token('bytes_up'):,.3g} and {streamed.per_token('bytes_down'):,.3g} for the target streamed."
    )
