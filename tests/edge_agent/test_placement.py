"""Where a session is opened, and when a worker is left alone."""

from __future__ import annotations

import pytest

from edge_agent.placement import REFUSED_S, RETRY_S, Placement
from schemas.messages import Presence
from tests.edge_agent.test_workers import directory, status


@pytest.fixture
def placement():
    """Two workers that stay fresh; the first choice and the second one."""
    workers = directory()
    for name in ("w0", "w1"):
        workers.update(name, status(beat_s=3600), now_s=0)
    return Placement(workers), *workers.ranked(0)


def test_the_best_worker_comes_first_and_after_a_pause_again(placement):
    choice, best, _ = placement
    assert choice.choose(0) == best
    assert choice.choose(RETRY_S / 2) is None
    assert choice.choose(RETRY_S) == best


def test_what_is_known_to_be_lost_is_replaced_without_a_pause(placement):
    choice, best, _ = placement
    choice.choose(0)
    choice.choose_at_once()
    assert choice.choose(0) == best


def test_a_worker_that_missed_a_verdict_is_left_for_another_at_once(placement):
    choice, best, other = placement
    choice.distrust(best)
    assert choice.choose(0, best, suspect_since_s=0) == other
    assert not choice.trusts(best)


def test_with_nobody_else_a_suspect_is_given_time_and_then_the_others_are_tried_first(placement):
    choice, best, other = placement
    choice.distrust(best)
    choice.distrust(other)
    assert choice.choose(0.5 * RETRY_S, best, suspect_since_s=0) is None
    assert choice.choose(RETRY_S, best, suspect_since_s=0) == other
    assert choice.choose(3 * RETRY_S, other, suspect_since_s=2 * RETRY_S) == best


def test_a_sign_of_life_restores_trust(placement):
    choice, best, _ = placement
    choice.distrust(best)
    choice.trust(best)
    assert choice.choose(0) == best


def test_a_new_answer_finds_a_trusted_worker_at_once_and_a_distrusted_one_no_sooner_than_before(placement):
    choice, best, other = placement
    assert choice.choose(0) == best
    choice.begin(0)
    assert choice.choose(0) == best
    choice.distrust(best)
    choice.distrust(other)
    choice.begin(0.5 * RETRY_S)
    assert choice.choose(0.5 * RETRY_S) is None
    choice.trust(best)
    assert choice.choose(0.5 * RETRY_S) == best


def test_a_worker_that_refused_is_left_alone_for_a_while_and_its_reason_stands(placement):
    choice, best, other = placement
    choice.refused(best, 0)
    choice.refused(other, 0)
    assert choice.choose(REFUSED_S - 1) is None
    assert choice.why_none(REFUSED_S - 1) is None
    assert choice.choose(REFUSED_S) == best


def test_with_nobody_online_it_says_so():
    workers = directory()
    workers.update("w", status(state=Presence.OFFLINE), 0)
    choice = Placement(workers)
    assert choice.choose(0) is None
    assert choice.why_none(0) == "no sign of life from w"
