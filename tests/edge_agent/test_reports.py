"""When operators are told, and of what."""

from __future__ import annotations

import pytest

from edge_agent.reports import MAX_SHARE, Reports, message_bytes
from edge_agent.usage import added
from schemas.messages import Usage

TOPIC = "hunch/v1/agents/pi/metrics"


def answer(**counts: float) -> Usage:
    return Usage(**({"tokens": 10, "skipped": 8, "accepted": 2, "audited": 8} | counts))


def test_telemetry_stays_within_its_share_whatever_answers_cost() -> None:
    reports = Reports(connect_bytes=300)
    crossed, told = 400, 0
    for index in range(2000):
        crossed += 200 + 37 * (index % 50)
        reports.add(answer(), [])
        if reports.is_due(crossed, num_connects=1):
            payload = bytes(330)
            reports.told(TOPIC, payload)
            told += message_bytes(TOPIC, payload)
            crossed += message_bytes(TOPIC, payload)
            assert 300 + told <= MAX_SHARE * crossed
    # And it uses that share: less than one more report is left over.
    assert 300 + told + 2 * 400 > MAX_SHARE * crossed


def test_connecting_again_is_charged_like_any_other_telemetry() -> None:
    reports = Reports(connect_bytes=500)
    reports.add(answer(), [])
    assert reports.is_due(50_000, num_connects=1)
    assert not reports.is_due(50_000, num_connects=3)
    reports.charge(TOPIC, bytes(600))
    assert not reports.is_due(50_000, num_connects=1)


def test_where_bytes_are_unknown_a_report_goes_out_once_a_minute() -> None:
    now = [100.0]
    reports = Reports(connect_bytes=0, clock=lambda: now[0])
    reports.add(answer(), [])
    assert not reports.is_due(None, 1)
    now[0] += 60.0
    assert reports.is_due(None, 1)
    reports.told(TOPIC, b"{}")
    assert not reports.is_due(None, 1)


def test_a_report_sums_up_the_answers_since_the_last_one() -> None:
    reports = Reports(connect_bytes=0)
    reports.add(answer(divergence=0.01, bytes_up=100, seconds=0.25), [0.010, 0.020])
    reports.add(answer(divergence=0.04, bytes_up=50, seconds=0.5, tokens=30, skipped=28, audited=28), [0.060])
    usage = reports.usage
    assert (reports.num_answers, usage.tokens, usage.bytes_up, usage.seconds) == (2, 40, 150, 0.75)
    assert usage.divergence == pytest.approx((10 * 0.01 + 30 * 0.04) / 40)
    assert usage.round_trip_median_ms == 20.0
    assert usage.round_trip_p99_ms == pytest.approx(59.2)
    reports.told(TOPIC, b"{}")
    reports.add(answer(tokens=12), [])
    assert (reports.num_answers, reports.usage.tokens, reports.usage.round_trip_median_ms) == (1, 12, None)


def test_what_is_not_known_of_one_answer_is_not_known_of_both() -> None:
    known, unknown = answer(bytes_up=5, bytes_down=7), answer()
    assert added(known, unknown).bytes_up is None
    unjudged = Usage(tokens=4, unverified=4)
    assert added(unjudged, unjudged).divergence is None
    assert added(answer(divergence=0.5), unjudged).divergence == 0.5
