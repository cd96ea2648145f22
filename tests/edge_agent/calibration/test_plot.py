"""Curves land where their axes say, and names cannot break out of the page."""

from __future__ import annotations

import re

import pytest

from edge_agent.calibration.plot import Axis, Curve, plot

X, Y = Axis("risk", 0, 0.1), Axis("share", 0, 1)


def _points(page: str) -> list[list[float]]:
    found = re.search(r'points="([^"]*)"', page)
    assert found is not None
    return [[float(value) for value in point.split(",")] for point in found[1].split()]


def test_an_axis_runs_from_end_to_end_and_keeps_what_lies_outside_on_its_edge():
    assert [X.share(value) for value in (-1, 0, 0.05, 0.1, 7)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_a_logarithmic_axis_gives_every_doubling_the_same_room():
    axis = Axis("k", 1, 16, log=True)
    assert [axis.share(value) for value in (0, 1, 2, 4, 8, 16)] == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1])


def test_a_curve_goes_right_with_x_and_up_with_y():
    (x1, y1), (x2, y2) = _points(plot([Curve("rising", [(0.0, 0.0), (0.1, 1.0)])], X, Y))
    assert x1 < x2
    assert y1 > y2  # in a drawing y counts from the top


def test_every_curve_stands_in_the_legend_and_a_name_cannot_bring_markup():
    page = plot([Curve("<b>one", []), Curve("two", [], dashed=True)], X, Y, marks=[("<i>here", 0.05)])
    assert page.count("<polyline") == page.count("<span>") == 2
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;one" in page
