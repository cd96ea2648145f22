"""The draft model's cache: what stays is never evaluated again."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_agent.drafter import Drafter
from runtime.llama import ContextOptions


class FakeContext:
    """Remembers what was evaluated; logits name the last token. `forgets_all`: a recurrent model's cache."""

    def __init__(self, *, forgets_all=False):
        self.options = ContextOptions(num_cells=100)
        self.cache: list[int] = []
        self.evaluated: list[list[int]] = []
        self._forgets_all = forgets_all

    def decode(self, spans):
        (span,) = spans
        assert span.start == len(self.cache)
        assert span.token_ids
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
