"""The task: which calls there are, and which are right."""

from __future__ import annotations

import json
import lzma

import pytest

from benchmarks.paper.calls import Call, read_corpus, spread, write_calibration_text
from schemas.errors import ConfigurationError
from schemas.messages import ChatMessage, Prompt

RECORDED = '{"call": "Reserve", "city": "Napa", "size": "5"}'
DIALOGUE = [["user", "A table."], ["call", RECORDED], ["result", "{}"], ["call", RECORDED]]


def written(path, dialogues):
    path.write_text("".join(json.dumps(dialogue) + "\n" for dialogue in dialogues))
    return path


def call() -> Call:
    return Call(Prompt(id="a", text="x"), RECORDED)


@pytest.mark.parametrize("text", [RECORDED, '{"size":"5","city":"Napa","call":"Reserve"}'])
def test_a_call_is_right_whatever_its_spaces_and_order(text):
    assert call().is_right(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        RECORDED[:-1],
        RECORDED + "}",
        RECORDED.replace("Reserve", "Find"),
        RECORDED.replace("Napa", "napa"),
        RECORDED.replace('"5"', "5"),
        '{"call": "Reserve", "city": "Napa"}',
        '{"call": "Reserve", "city": "Napa", "size": "5", "date": "today"}',
    ],
)
def test_a_call_with_anything_else_is_wrong(text):
    assert not call().is_right(text)


def test_odd_lines_are_judged_and_even_lines_calibrate(tmp_path):
    corpus = read_corpus(written(tmp_path / "d.jsonl", [DIALOGUE, DIALOGUE[:3], DIALOGUE]))
    assert [call.prompt.id for call in corpus.calls] == [
        "dialogue-0-1",
        "dialogue-0-3",
        "dialogue-1-1",
        "dialogue-1-3",
    ]
    assert corpus.calibration == ([(role, text) for role, text in DIALOGUE[:3]],)


def test_a_call_is_asked_for_after_what_was_truly_said(tmp_path):
    corpus = read_corpus(written(tmp_path / "d.jsonl", [DIALOGUE, DIALOGUE]))
    assert corpus.calls[1].prompt.messages == (
        ChatMessage(role="user", content="A table."),
        ChatMessage(role="call", content=RECORDED),
        ChatMessage(role="result", content="{}"),
        ChatMessage(role="call", content=""),
    )
    assert corpus.calls[1].recorded == RECORDED


def test_a_packed_file_is_read_too(tmp_path):
    packed = tmp_path / "d.jsonl.xz"
    with lzma.open(packed, "wt") as lines:
        lines.write((json.dumps(DIALOGUE) + "\n") * 2)
    assert len(read_corpus(packed).calls) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "no calls"),
        ('[["user", "a"]]\n[["user", "b"]]\n', "no calls"),
        ("not JSON\n", "line 1"),
        ('[["user", "a"]]\n{"messages": []}\n', "line 2"),
    ],
)
def test_a_file_without_dialogues_is_refused_in_one_line(tmp_path, content, why):
    file = tmp_path / "d.jsonl"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=why):
        read_corpus(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing\.jsonl"):
        read_corpus(tmp_path / "missing.jsonl")


def test_only_calls_are_calibrated_on(tmp_path):
    file = tmp_path / "c.jsonl"
    write_calibration_text(file, ([("user", "a"), ("assistant", "b"), ("call", RECORDED)],))
    messages = json.loads(file.read_text())["messages"]
    assert [(message["role"], message["weight"]) for message in messages] == [
        ("user", 0),
        ("assistant", 0),
        ("call", 1),
    ]


def test_calls_are_taken_at_even_distances():
    calls = tuple(Call(Prompt(id=str(number), text="x"), "") for number in range(10))
    assert [call.prompt.id for call in spread(calls, 4)] == ["0", "2", "5", "7"]
    assert spread(calls, 99) == calls
