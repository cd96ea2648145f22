"""What stood before, and what followed it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.history import MAX_CONTEXT, History


def test_a_text_repeats_by_one_and_two_tokens_but_not_by_three():
    history = History([5, 6, 7, 5, 6, 8, 5, 6])
    assert history.copied(7) == [0.5, 0.5, None]
    assert history.copied(9) == [0.0, 0.0, None]


def test_the_beginning_of_a_text_has_no_past():
    assert History().copied(1) == [None, None, None]
    assert History([4]).copied(4) == [None, None, None]
    assert History([4]).last(2) == (4,)


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 3), st.integers(1, 5))
def test_the_index_grows_with_the_text_and_says_what_a_search_would(ids, token_id, step):
    growing: list[int] = []
    history = History(growing)
    for start in range(0, len(ids), step):
        growing += ids[start : start + step]
        assert history.copied(token_id) == [_searched(growing, length, token_id) for length in (1, 2, 3)]


def _searched(ids: list[int], length: int, token_id: int) -> float | None:
    assert length <= MAX_CONTEXT
    context = ids[-length:]
    followers = [ids[at + length] for at in range(len(ids) - length) if ids[at : at + length] == context]
    return followers.count(token_id) / len(followers) if followers else None
