"""Curves as SVG, for pages that load nothing. In: curves and axes. Out: a figure, its legend below. Pure.

A page that shows figures puts `STYLE` into its style sheet: colours follow the reader's light or dark
scheme, and figures shrink with a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_NUM_COLORS = 7
_LEGEND_ROW = 18
# A curve through few points shows where they are.
_MAX_MARKED = 12

STYLE = """
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--grid:#ddd;--faint:#666;
--c0:#1b6ca8;--c1:#c8553d;--c2:#3d8540;--c3:#8a5aa8;--c4:#a87a08;--c5:#555;--c6:#0d8a8a}
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--paper:#16181c;--grid:#363a42;--faint:#9a9fa8;
--c0:#6db3e8;--c1:#f08a70;--c2:#7cc47f;--c3:#c49ae0;--c4:#e0b64a;--c5:#b0b0b0;--c6:#5fd0d0}}
figure{margin:1em 0;max-width:44em}
figure svg{display:block;width:100%;height:auto;font:12px sans-serif}
figure text{fill:var(--faint)}
figcaption{display:flex;flex-wrap:wrap;gap:.2em 1.2em;font-size:.9em}
figcaption i{display:inline-block;width:1.4em;margin-right:.4em;vertical-align:middle}
"""

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Points to join by lines, from left to right; dashed ones are there to compare with. One point is a dot."""

    name: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """What an axis shows, and from where to where. `ticks` None: six, evenly; a `log` axis begins above 0."""

    label: str
    low: float
    high: float
    ticks: Sequence[float] | None = None
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, in [0, 1]; what lies outside stays on the edge."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def marks(self) -> list[float]:
        """Where the grid lies."""
        if self.ticks is not None:
            return list(self.ticks)
        return [self.low + (self.high - self.low) * step / 5 for step in range(6)]


def plot(curves: Sequence[Curve], x: Axis, y: Axis, *, marks: Sequence[tuple[str, float]] = ()) -> str:
    """A figure of the curves; `marks` are places on the x axis to point out, each with its name."""
    legend = "".join(_legend(curve, index) for index, curve in enumerate(curves))
    return f"<figure>{_drawing(curves, x, y, marks)}<figcaption>{legend}</figcaption></figure>"


def picture(curves: Sequence[Curve], x: Axis, y: Axis) -> str:
    """The same as an SVG file of its own, the legend within it."""
    height = _HEIGHT + _LEGEND_ROW * len(curves) + 6
    size = f'width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_WIDTH} {height}" ',
        f'font-size="12" font-family="sans-serif"><style>{STYLE}text{{fill:var(--faint)}}</style>',
        f'<rect {size} fill="var(--paper)"/>{_drawing(curves, x, y, ())}',
    ]
    for index, curve in enumerate(curves):
        middle = _HEIGHT + _LEGEND_ROW * index + 8
        ends = Curve(
            curve.name, [(0.0, 0.0)] if len(curve.points) == 1 else [(0.0, 0.0), (0.06, 0.0)], curve.dashed
        )
        unit = Axis("", 0.0, 1.0)
        shift = f"translate(0 {middle - _place(0, 0)[1]})"
        parts += [f'<g transform="{shift}">{_curve(ends, index, unit, unit)}</g>']
        parts.append(_text(_LEFT + 36, middle + 4, curve.name, "start"))
    return "".join(parts) + "</svg>"


def _drawing(curves: Sequence[Curve], x: Axis, y: Axis, marks: Sequence[tuple[str, float]]) -> str:
    """Grid, axes, marks and curves, without a legend."""
    left, bottom = _place(0, 0)
    right, top = _place(1, 1)
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [f'<svg {size} role="img" aria-label="{escape(y.label)}">']
    for value in x.marks():
        at, _ = _place(x.share(value), 0)
        parts += [_line(at, bottom, at, top), _text(at, bottom + 15, f"{value:.3g}")]
    for value in y.marks():
        _, at = _place(0, y.share(value))
        parts += [_line(left, at, right, at), _text(left - 5, at + 4, f"{value:.3g}", "end")]
    for name, value in marks:
        at, _ = _place(x.share(value), 0)
        parts.append(_line(at, bottom, at, top, style='stroke="var(--ink)" stroke-dasharray="2 3"'))
        is_right = x.share(value) > 0.6
        parts.append(_text(at - 4 if is_right else at + 4, top + 12, name, "end" if is_right else "start"))
    parts += [_curve(curve, index, x, y) for index, curve in enumerate(curves)]
    parts.append(_text((left + right) / 2, _HEIGHT - 6, x.label))
    middle = (top + bottom) / 2
    parts.append(f'<g transform="rotate(-90 12 {middle})">{_text(12, middle, y.label)}</g></svg>')
    return "".join(parts)


def _curve(curve: Curve, index: int, x: Axis, y: Axis) -> str:
    places = [_place(x.share(px), y.share(py)) for px, py in curve.points]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]}" cy="{places[0][1]}" r="5" fill="{_color(index)}"/>'
    line = " ".join(f"{px},{py}" for px, py in places)
    dashes = ' stroke-dasharray="5 4"' if curve.dashed else ""
    style = f'fill="none" stroke="{_color(index)}" stroke-width="2"{dashes}'
    marked = places if len(places) <= _MAX_MARKED else []
    dots = "".join(f'<circle cx="{px}" cy="{py}" r="3" fill="{_color(index)}"/>' for px, py in marked)
    return f'<polyline points="{line}" {style}/>{dots}'


def _legend(curve: Curve, index: int) -> str:
    border = "dashed" if curve.dashed else "solid"
    style = f"border-top:3px {border} {_color(index)}"
    if len(curve.points) == 1:
        style = f"width:.7em;height:.7em;border-radius:50%;background:{_color(index)}"
    swatch = f'<i style="{style}"></i>'
    return f"<span>{swatch}{escape(curve.name)}</span>"


def _color(index: int) -> str:
    return f"var(--c{index % _NUM_COLORS})"


def _place(share_x: float, share_y: float) -> tuple[float, float]:
    """Shares of the axes to coordinates of the drawing."""
    inner_x, inner_y = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return round(_LEFT + share_x * inner_x, 1), round(_TOP + (1 - share_y) * inner_y, 1)


def _line(x1: float, y1: float, x2: float, y2: float, *, style: str = 'stroke="var(--grid)"') -> str:
    return f'<path d="M{x1} {y1}L{x2} {y2}" {style}/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
