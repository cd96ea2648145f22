"""What an answer was made of, by hand-counted books."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.ledger import Ledger, Origin, Record
from edge_agent.round_trips import RoundTrips
from edge_agent.usage import Recent, mean_divergence, summarise


def books(*records: Record) -> Ledger:
    ledger = Ledger([1, 2, 3])
    ledger.records.extend(records)
    return ledger


def token(origin: Origin, beta: float | None = None) -> Record:
    return Record(9, origin, 200, 0.1, beta)


def test_an_answer_without_tokens_has_no_divergence_and_no_round_trips():
    usage = summarise(books(), RoundTrips(), 0.5)
    assert (usage.prompt_tokens, usage.tokens, usage.seconds) == (3, 0, 0.5)
    assert usage.divergence is None
    assert usage.round_trip_median_ms is None
    assert usage.round_trip_p99_ms is None


def test_tokens_are_counted_by_their_origin():
    numbers = {origin: number for number, origin in enumerate(Origin, start=1)}
    records = [token(origin, 0.0) for origin, number in numbers.items() for _ in range(number)]
    usage = summarise(books(*records), RoundTrips(), 1.0)
    for origin, number in numbers.items():
        assert getattr(usage, origin.value) == number
    assert usage.tokens == sum(numbers.values())


def test_the_divergence_is_the_mean_over_all_judged_tokens_of_what_the_skipped_ones_cost():
    records = [
        token(Origin.SKIPPED, 0.3),
        token(Origin.SKIPPED, 0.1),
        token(Origin.ACCEPTED, 0.8),  # asked about, so it costs nothing
        token(Origin.RECOVERED),
        token(Origin.BONUS),
    ]
    usage = summarise(books(*records), RoundTrips(), 1.0)
    assert usage.divergence == pytest.approx(0.4 / 5)
    assert usage.audited == 2


def test_what_is_not_known_is_left_out_and_not_taken_for_zero():
    records = [
        token(Origin.SKIPPED, 0.3),
        token(Origin.SKIPPED),  # its audit never came
        token(Origin.UNVERIFIED),
        token(Origin.UNVERIFIED, 1.0),  # a late verdict; still unverified
    ]
    usage = summarise(books(*records), RoundTrips(), 1.0)
    assert usage.divergence == pytest.approx(0.3)
    assert (usage.skipped, usage.audited, usage.unverified) == (2, 1, 2)


def test_an_answer_of_unverified_tokens_alone_has_no_divergence():
    assert summarise(books(token(Origin.UNVERIFIED)), RoundTrips(), 1.0).divergence is None


def test_round_trips_are_told_in_milliseconds():
    trips = RoundTrips(seconds=[index / 1000 for index in range(1, 102)])
    usage = summarise(books(token(Origin.ACCEPTED)), trips, 1.0)
    assert usage.round_trip_median_ms == pytest.approx(51)
    assert usage.round_trip_p99_ms == pytest.approx(100)


def test_the_interval_holds_the_true_mean_in_nineteen_cases_of_twenty():
    rng = np.random.default_rng(0)
    # Losses as the demo's pair has them: mostly none, some of any size; their mean is 0.02.
    draws = (rng.random((2000, 400)) < 0.08) * rng.beta(1, 3, (2000, 400))
    results = [mean_divergence(losses) for losses in draws]
    held = [abs(mean - 0.02) <= margin for mean, margin in filter(None, results)]
    assert len(held) == 2000
    assert 0.94 < np.mean(held) < 0.995


def test_a_few_tokens_without_any_loss_prove_little():
    assert mean_divergence(np.zeros(0)) is None
    few, many = mean_divergence(np.zeros(20)), mean_divergence(np.zeros(2000))
    assert few is not None
    assert many is not None
    assert few[0] == many[0] == 0
    assert few[1] == pytest.approx(0.093, abs=0.001)
    assert many[1] < 0.001


def test_recent_figures_are_of_the_last_two_thousand_tokens():
    recent = Recent()
    assert recent.figures().tokens == 0
    assert recent.figures().divergence is None
    recent.add([token(Origin.SKIPPED, 1.0)] * 500)
    recent.add([token(Origin.SKIPPED, 0.5)] * 500 + [token(Origin.UNVERIFIED)] * 500)
    recent.add([token(Origin.ACCEPTED, 0.9)] * 1000)
    figures = recent.figures()
    assert figures.tokens == 2000
    assert figures.skip_share == 0.25
    assert figures.unverified_share == 0.25
    assert figures.divergence == pytest.approx(250 / 1500, abs=1e-5)
