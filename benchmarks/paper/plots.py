"""The page's plots as SVG files. In: results. Out: files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from benchmarks.paper.counts import Sums
from edge_agent.calibration.plot import Axis, Curve, picture

_COLORS = ("#1b6ca8", "#c8553d", "#4a8f4a", "#8a5aa8", "#b8860b", "#555555", "#2f9e8f", "#a83279")
_ROW, _GROUP_GAP, _LABEL, _BAR = 15, 26, 170, 420


def write_curves(file: Path, target: Sums, curves: Mapping[str, Sequence[Sums]]) -> None:
    """Accuracy kept against share skipped, a curve a method, each through the settings that were measured."""
    drawn = [
        Curve(name, sorted((sums.per_token("skipped"), sums.accuracy / target.accuracy) for sums in rows))
        for name, rows in curves.items()
        if rows
    ]
    least = min((kept for curve in drawn for _, kept in curve.points), default=0.0)
    # Where most is kept is what matters; a curve that falls below half is seen to do so.
    kept = Axis("share of the target's accuracy kept", 0.5 if least < 0.9 else 0.9, 1.0)
    _write(file, picture(drawn, Axis("share of tokens skipped", 0.3, 1.0), kept))


def write_bars(file: Path, title: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """A group of bars a link, a bar a method, on a logarithmic scale that all share."""
    values = [value for bars in groups.values() for value in bars.values() if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    parts, y = [f'<text x="0" y="14">{escape(title)}</text>'], 24
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    for group, bars in groups.items():
        parts.append(f'<text x="0" y="{y + 12}" font-weight="bold">{escape(group)}</text>')
        y += 18
        for name, value in bars.items():
            width = _BAR * (math.log10(value) - low) / max(1, high - low) if value > 0 else 0
            color = _COLORS[names.index(name) % len(_COLORS)]
            parts += [
                f'<text x="{_LABEL - 6}" y="{y + 11}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{_LABEL}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 4}" fill="{color}"/>',
                f'<text x="{_LABEL + width + 4:.1f}" y="{y + 11}">{value:.3g}</text>',
            ]
            y += _ROW
        y += _GROUP_GAP - _ROW
    size = f'width="{_LABEL + _BAR + 60}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-size="12" font-family="sans-serif">'
    _write(file, head + "".join(parts) + "</svg>")


def _write(file: Path, svg: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(svg + "\n", encoding="utf-8")
