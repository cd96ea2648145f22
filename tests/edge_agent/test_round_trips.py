"""How long verdicts take."""

from __future__ import annotations

import math

import pytest

from edge_agent.round_trips import RoundTrips, UsualRoundTrip


def test_an_answer_without_verdicts_has_no_figures():
    assert (RoundTrips().median_ms, RoundTrips().p99_ms) == (None, None)


def test_the_figures_of_an_answer_are_in_milliseconds():
    trips = RoundTrips([index / 1000 for index in range(101)])
    assert trips.median_ms == pytest.approx(50)
    assert trips.p99_ms == pytest.approx(99)


def test_what_is_usual_begins_with_the_first_verdict_and_follows_the_last_ones():
    usual = UsualRoundTrip()
    assert usual.seconds == math.inf
    usual.note(1.0)
    assert usual.seconds == 1.0
    usual.note(2.0)
    assert usual.seconds == pytest.approx(1.2)
    for _ in range(30):
        usual.note(0.1)
    assert usual.seconds == pytest.approx(0.1, rel=0.05)
