"""The draft model's cache: what stays is never evaluated again."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from edge_agent.drafter import Drafter
from runtime.llama import ContextOptions
from schemas.errors import ModelError


class FakeContext:
    """Remembers what was evaluated; logits name the last token. `forgets_all`: a recurrent model's cache."""

    def __init__(self, *, forgets_all=False):
        self.options = ContextOptions(num_cells=100)
        self.cache: list[int] = []
        self.evaluated: list[list[int]] = []
        self.fails = False
        self._forgets_all = forgets_all

    def decode(self, spans):
        (span,) = spans
        assert span.start == len(self.cache)
        assert span.token_ids
        if self.fails:  # half-way, as llama.cpp may
            self.cache += span.token_ids[:1]
            raise ModelError("no room left in its cache")
        self.cache += span.token_ids
        self.evaluated.append(list(span.token_ids))
        return [np.full((1, 4), span.token_ids[-1], np.float32)]

    def truncate(self, _sequence, length):
        if self._forgets_all and length < len(self.cache):
            length = 0
        del self.cache[length:]
        return length


def drafter_over(context: Any) -> Drafter:
    return Drafter(context)


def test_a_rollback_evaluates_nothing_that_stays():
    context = FakeContext()
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3])
    drafter.advance([4])
    drafter.rollback(3)
    assert drafter.advance([5])[0] == 5
    assert context.evaluated == [[1, 2, 3], [4], [5]]
    assert context.cache == [1, 2, 3, 5]


def test_a_prompt_that_goes_on_from_the_last_one_keeps_what_they_share():
    context = FakeContext()
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3])
    drafter.restart([1, 2, 9, 4])
    assert context.evaluated == [[1, 2, 3], [9, 4]]


def test_the_same_prompt_again_evaluates_its_last_token_alone():
    context = FakeContext()
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3])
    assert drafter.restart([1, 2, 3])[0] == 3
    assert context.evaluated == [[1, 2, 3], [3]]


def test_a_cache_that_can_only_forget_everything_is_filled_again():
    context = FakeContext(forgets_all=True)
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3, 4])
    drafter.rollback(2)
    assert context.cache == [1, 2]
    assert drafter.length == 2


def test_a_rollback_to_where_it_is_changes_nothing():
    context = FakeContext()
    drafter = drafter_over(context)
    drafter.restart([1, 2])
    drafter.rollback(2)
    assert context.evaluated == [[1, 2]]


def test_every_prefix_is_reused_and_never_a_token_beyond_it():
    context = FakeContext()
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3, 4])
    drafter.advance([5])
    for prompt, evaluated in [
        ([1, 2, 3, 4, 5, 6], [6]),
        ([1, 2, 3], [3]),
        ([7, 2, 3], [7, 2, 3]),
        ([7], [7]),
    ]:
        drafter.restart(prompt)
        assert context.evaluated[-1] == evaluated
        assert context.cache == prompt


def test_a_question_that_goes_on_after_a_rollback_reuses_what_is_left():
    context = FakeContext()
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3])
    drafter.advance([4])
    drafter.rollback(3)
    drafter.restart([1, 2, 3, 4, 5])
    assert context.evaluated[-1] == [4, 5]


def test_a_cache_that_can_only_forget_everything_costs_what_stays_once():
    context = FakeContext(forgets_all=True)
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3])
    drafter.advance([4])
    drafter.rollback(3)
    assert drafter.advance([5])[0] == 5
    assert context.evaluated == [[1, 2, 3], [4], [1, 2, 3], [5]]
    drafter.rollback(0)
    assert drafter.length == 0
    assert context.evaluated[-1] == [5]


@pytest.mark.parametrize("forgets_all", [False, True])
@given(data=st.data())
def test_after_any_steps_the_cache_holds_what_the_drafter_says(forgets_all, data):
    context = FakeContext(forgets_all=forgets_all)
    drafter = drafter_over(context)
    expected: list[int] = []
    tokens = st.lists(st.integers(0, 2), min_size=1, max_size=5)
    for _ in range(data.draw(st.integers(0, 8))):
        step = data.draw(st.sampled_from(["restart", "advance", "rollback"]))
        if step == "rollback":
            length = data.draw(st.integers(0, 12))
            drafter.rollback(length)
            expected = expected[:length]
        else:
            ids = data.draw(tokens)
            logits = drafter.restart(ids) if step == "restart" else drafter.advance(ids)
            expected = ids if step == "restart" else expected + ids
            assert logits[0] == expected[-1]
        assert context.cache == expected
        assert drafter.length == len(expected)


def test_after_a_failure_of_the_model_the_next_answer_starts_anew():
    context = FakeContext()
    drafter = drafter_over(context)
    drafter.restart([1, 2, 3])
    context.fails = True
    with pytest.raises(ModelError):
        drafter.advance([4, 5])
    assert drafter.length == 0
    context.fails = False
    drafter.restart([1, 2, 3])
    assert context.cache == [1, 2, 3]


def test_the_capacity_is_that_of_the_context():
    assert drafter_over(FakeContext()).capacity == 100
