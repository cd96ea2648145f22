"""The figures that the controller's benchmark reports, over books made up for it."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.controller import Outcome, _code_prompts, _dialogue_prompts
from edge_agent.ledger import Origin, Record


def skipped(beta: float | None) -> Record:
    return Record(5, Origin.SKIPPED, 200, 0.1, beta)


ASKED = Record(5, Origin.ACCEPTED, 200, 0.9)
UNVERIFIED = Record(5, Origin.UNVERIFIED, 200, 0.9, 1.0)


def test_the_worst_window_is_found_wherever_it_lies():
    calm, bad = [ASKED] * 2000, [skipped(0.5)] * 40
    for records in ([*bad, *calm], [*calm, *bad], [*calm[:1000], *bad, *calm[1000:]]):
        assert Outcome(records).worst == pytest.approx(0.01)


def test_what_is_not_known_neither_fills_a_window_nor_thins_it():
    apart = [skipped(0.5)] * 20 + [UNVERIFIED, skipped(None)] * 500 + [skipped(0.5)] * 20
    assert Outcome([*apart, *[ASKED] * 1960]).worst == pytest.approx(0.01)
    assert Outcome([UNVERIFIED] * 5000 + [ASKED] * 1999).worst is None


def test_it_has_arrived_where_it_skips_as_much_as_later_on():
    assert Outcome([ASKED] * 700 + [skipped(0.0)] * 4000).arrived_after == 650
    assert Outcome([skipped(0.0)] * 4000).arrived_after == 0


def test_dialogues_become_prompts_for_the_turns_that_an_agent_says():
    dialogue = [("user", "a"), ("assistant", "b"), ("user", "c"), ("call", "{}"), ("result", "d")]
    prompts = list(islice(_dialogue_prompts([dialogue]), 3))
    assert [[turn.content for turn in prompt.messages or ()] for prompt in prompts] == [
        ["a"],
        ["a", "b", "c", ""],  # opened for a call
        ["a"],
    ]


def test_code_comes_in_pieces_and_never_ends():
    prompts = list(islice(_code_prompts(), 2000))
    assert len({prompt.text for prompt in prompts}) > 1000
    assert all(prompt.raw and prompt.text for prompt in prompts)
