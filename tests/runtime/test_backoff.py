"""Backoff: grows, is bounded, is spread evenly, and starts again when told."""

from __future__ import annotations

import random

from runtime.backoff import Backoff


class Highest(random.Random):
    """Always draws the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(random.Random):
    """Always draws the lower end."""

    def uniform(self, a: float, b: float) -> float:
        return a


def test_the_upper_end_doubles_up_to_the_bound():
    backoff = Backoff(0.2, 30.0, Highest())
    delays = [backoff.next_delay_s() for _ in range(10)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_the_jitter_is_full_so_the_lower_end_stays_at_zero():
    backoff = Backoff(0.2, 30.0, Lowest())
    assert [backoff.next_delay_s() for _ in range(10)] == [0.0] * 10


def test_a_thousand_failures_neither_overflow_nor_pass_the_bound():
    backoff = Backoff(0.2, 30.0, Highest())
    assert max(backoff.next_delay_s() for _ in range(2000)) == 30.0


def test_a_fleet_that_failed_together_comes_back_spread_over_the_whole_interval():
    third_delays = []
    for seed in range(1000):
        backoff = Backoff(0.2, 30.0, random.Random(seed))
        third_delays.append([backoff.next_delay_s() for _ in range(3)][2])
    assert all(0.0 <= delay <= 0.8 for delay in third_delays)
    in_each_quarter = [sum(q * 0.2 <= delay < (q + 1) * 0.2 for delay in third_delays) for q in range(4)]
    assert min(in_each_quarter) > 200  # 250 expected, standard deviation 14


def test_after_a_reset_the_shortest_delay_comes_again():
    backoff = Backoff(0.2, 30.0, Highest())
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() == 0.2
