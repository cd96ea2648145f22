"""Text is shown once it stands: whole characters, and nothing that a stop string may still take away."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from edge_agent.ledger import Origin
from edge_agent.text import TextAssembler


def assemble(parts, stop=()):
    """The texts after each part, and the assembler."""
    assembler = TextAssembler(stop)
    shown = ["".join(piece.text for piece in assembler.add(part, Origin.SKIPPED)) for part in parts]
    return shown, assembler


def end(assembler):
    return "".join(piece.text for piece in assembler.finish())


def test_a_character_over_three_tokens_appears_with_the_last_of_them():
    shown, _ = assemble(["€".encode()[:1], "€".encode()[1:2], "€".encode()[2:] + b"!"])
    assert shown == ["", "", "€!"]


def test_a_cut_character_becomes_a_replacement_at_the_end():
    shown, assembler = assemble([b"a", "é".encode()[:1]])
    assert shown == ["a", ""]
    assert end(assembler) == "\ufffd"


def test_a_stop_string_over_tokens_is_never_shown():
    shown, assembler = assemble([b"yes ", b"ST", b"O", b"P more"], stop=("STOP",))
    assert "".join(shown) == "yes "
    assert assembler.stopped
    assert end(assembler) == ""
    assert assembler.add(b"more", Origin.SKIPPED) == []


def test_what_only_began_like_a_stop_string_is_shown_when_it_turns_out_otherwise():
    shown, assembler = assemble([b"ST", b"AY"], stop=("STOP",))
    assert shown == ["", "STAY"]
    assert not assembler.stopped


def test_what_is_held_back_at_the_end_is_shown():
    shown, assembler = assemble([b"ST"], stop=("STOP",))
    assert shown == [""]
    assert end(assembler) == "ST"


def test_the_first_of_several_stop_strings_counts():
    shown, _ = assemble([b"a b c"], stop=("c", "b"))
    assert shown == ["a "]


def test_every_piece_keeps_the_origin_of_the_token_that_completed_it():
    assembler = TextAssembler(("##",))
    pieces = assembler.add(b"a#", Origin.SKIPPED) + assembler.add(b"b", Origin.RECOVERED)
    assert [(piece.text, piece.origin) for piece in pieces] == [
        ("a", Origin.SKIPPED),
        ("#", Origin.SKIPPED),
        ("b", Origin.RECOVERED),
    ]


def test_overlapping_stop_strings_hold_back_the_longest_beginning_of_any():
    shown, assembler = assemble([b"xab", b"d", b"abc"], stop=("abc", "bd"))
    assert shown == ["x", "a", ""]
    assert assembler.stopped
    assert end(assembler) == ""


def test_a_stop_string_that_begins_another_ends_the_answer_where_both_begin():
    for stop in (("ab", "abc"), ("abc", "ab")):
        shown, assembler = assemble([b"-a", b"b", b"c"], stop)
        assert "".join(shown) == "-"
        assert assembler.stopped


def test_a_stop_string_that_overlaps_itself_is_found_where_it_is_whole():
    shown, assembler = assemble([b"aab", b"aab", b"aac"], stop=("aabaac",))
    assert "".join(shown) + end(assembler) == "aab"
    assert assembler.stopped


def test_a_stop_string_may_begin_inside_the_token_that_completes_a_character():
    shown, _ = assemble(["€".encode()[:2], "€".encode()[2:] + b"S", b"T"], stop=("€ST",))
    assert shown == ["", "", ""]


def test_a_token_without_text_changes_nothing():
    shown, assembler = assemble([b"a#", b"", b"b"], stop=("##",))
    assert shown == ["a", "", "#b"]
    assert not assembler.stopped


def test_a_cut_character_keeps_the_origin_of_the_token_that_left_it():
    assembler = TextAssembler()
    assembler.add(b"a", Origin.SKIPPED)
    assembler.add("é".encode()[:1], Origin.RECOVERED)
    assert [(piece.text, piece.origin) for piece in assembler.finish()] == [("\ufffd", Origin.RECOVERED)]


def test_an_empty_stop_string_stops_nothing():
    shown, assembler = assemble([b"a"], stop=("",))
    assert shown == ["a"]
    assert not assembler.stopped


@given(st.lists(st.binary(max_size=5), max_size=12), st.sampled_from(["", "ab", "aab", "€"]))
def test_text_that_was_shown_is_never_taken_back(parts, stop):
    # What any longer answer shows begins with what a shorter one has shown already.
    shown, _ = assemble(parts, (stop,))
    for count in range(len(parts)):
        assert assemble(parts[:count], (stop,))[0] == shown[:count]


@given(st.lists(st.binary(max_size=5), max_size=12), st.lists(st.sampled_from(["ab", "ba", "€"]), max_size=2))
def test_whatever_the_tokens_the_text_is_theirs_up_to_the_first_stop_string(parts, stop):
    shown, assembler = assemble(parts, tuple(stop))
    whole = b"".join(parts).decode("utf-8", "replace")
    cuts = [whole.find(each) for each in stop if each in whole]
    expected = whole[: min(cuts)] if cuts else whole
    assert "".join(shown) + end(assembler) == expected


@pytest.mark.parametrize(
    ("text", "is_structured"),
    [
        ('{"call": "Find', True),
        ('\n [{"name"', True),
        ('<tool_call>\n{"name"', True),
        ("<tool_call>\n", False),
        ("I found {3} places", False),
        ("", False),
    ],
)
def test_json_and_tool_calls_are_told_from_prose_by_their_beginning(text, is_structured):
    assembler = TextAssembler()
    for character in text:
        assembler.add(character.encode(), Origin.SKIPPED)
    assert assembler.is_structured == is_structured


def test_a_text_that_began_as_json_stays_structured_to_its_end():
    assembler = TextAssembler()
    assembler.add(b'{"call": "' + b"x" * 1000, Origin.SKIPPED)
    assembler.add(b'"} and more', Origin.SKIPPED)
    assert assembler.is_structured
