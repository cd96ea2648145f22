"""docs/protocol.md and the code say the same: every example is decoded, every number is one of the code's.

What is generated from the code, JSON messages among it, is tested in tests/deploy/test_reference.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.reference import words
from schemas import codec, compression, frames, messages
from schemas.codebook import Codebook
from schemas.compression import BodyCodec
from schemas.distribution import MAX_K
from schemas.frames import Draft, Open, Outcome, Verdict
from schemas.packing import Reader
from schemas.topics import DEFAULT_ROOT

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
TEXT = PAGE.read_text(encoding="utf-8")
BODY_CODEC = BodyCodec()
# That of the page's examples.
CODEBOOK = Codebook(b"hunch", (7, 2))


def test_the_table_of_topics_is_as_the_code_has_it():
    assert words.topic_table() in TEXT, "run make reference"


def test_the_page_names_the_root_that_is_the_default():
    assert f"`{DEFAULT_ROOT}`" in TEXT


# ------------------------------------------------------------------------------------ frame examples


class Example:
    """One annotated frame: its bytes, and what the page says that they mean."""

    LINE = re.compile(r"((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: {2,}(.+))?")
    # "name = value", a value being JSON, up to "; " or the end.
    STATEMENT = re.compile(r"(\w+) = (.+?)(?:; |$)")

    def __init__(self, text: str) -> None:
        self.lines: list[tuple[bytes, dict[str, Any]]] = []
        for line in text.splitlines():
            found = self.LINE.fullmatch(line)
            assert found is not None, f"no bytes in {line!r}"
            stated = {name: json.loads(value) for name, value in self.STATEMENT.findall(found[2] or "")}
            self.lines.append((bytes.fromhex(found[1]), stated))
        self.data = b"".join(data for data, _ in self.lines)

    @property
    def stated(self) -> dict[str, Any]:
        return {name: value for _, stated in self.lines for name, value in stated.items()}


EXAMPLES = [Example(text) for text in re.findall(r"```frame\n(.*?)\n```", TEXT, re.DOTALL)]
# Fields that are one varint each, wherever they occur.
VARINTS = {
    *("session", "num_tokens", "max_length", "epoch", "position", "deadline_ms", "k", "token_id", "known"),
}
DECODERS = {1: lambda data: codec.decode_open(data, bodies_of(data))} | dict.fromkeys(
    (2, 3), lambda data: codec.decode_draft(data, bodies_of(data))
)


def bodies_of(data: bytes) -> BodyCodec:
    """What an example is written by."""
    return CODEBOOK if codec.read_mark(data) or codec.is_by_codebook(data) else BODY_CODEC


def decode(data: bytes) -> Any:
    return DECODERS.get(data[0] & 0xF, codec.decode_worker_frame)(data)


def values(frame: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a frame under the names that the page uses, in values that JSON has."""
    for name, value in vars(frame).items():
        match name, value:
            case "vocabulary", _:
                yield from (("num_tokens", value.num_tokens), ("digest", value.digest.hex()))
            case "sampling", _:
                yield from value.model_dump().items()
            case "doubt", frames.Doubt(q_hat=q_hat):
                yield from (("deadline_ms", value.deadline_ms), ("drawn_index", value.drawn_index))
                yield from (("token_ids", q_hat.token_ids.tolist()), ("weights", q_hat.weights.tolist()))
            case _, Outcome():
                yield name, value.name.lower()
            case _, bytes():
                yield name, value.hex()
            case _, tuple():
                yield name, list(value)
            case _, None:
                pass
            case _:
                yield name, value


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.data[:2].hex())
def test_an_example_frame_decodes_to_the_values_stated_beside_it(example):
    stated = dict(example.stated)
    assert stated.pop("mark", CODEBOOK.mark.hex()) == CODEBOOK.mark.hex()
    if "token_ids" in stated:
        assert stated.pop("k", 1) == len(stated["token_ids"])
    assert stated == dict(values(decode(example.data)))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.data[:2].hex())
def test_an_example_frame_is_what_the_code_would_send(example):
    frame = decode(example.data)
    match frame:
        case Open():
            sent = codec.encode_open(frame, bodies_of(example.data))
        case Draft():
            sent = codec.encode_draft(frame, bodies_of(example.data))
        case _:
            sent = codec.encode_worker_frame(frame)
    if isinstance(frame, Open | Draft) and example.data[1] & 1:
        assert len(sent) <= len(example.data)  # another zstd may make other bytes of the same body
    else:
        assert sent == example.data


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.data[:2].hex())
def test_each_line_of_an_example_holds_the_bytes_of_its_own_value(example):
    assert [len(data) for data, _ in example.lines[:2]] == [1, 1]
    for data, stated in example.lines:
        for name, value in stated.items():
            if name in VARINTS:
                reader = Reader(data)
                assert reader.varint(name, 0, 2**64) == value
                reader.end()
            elif name in {"seed", "top_k"}:
                assert int.from_bytes(data, "little") == value
            elif name in {"digest", "betas", "mark"}:
                assert data.hex() == value
            elif name == "reason":
                assert data.decode() == value


def test_there_is_an_example_of_every_kind_and_every_outcome():
    assert {example.data[0] for example in EXAMPLES} == {0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17}
    decoded = [decode(example.data) for example in EXAMPLES]
    assert {frame.outcome for frame in decoded if isinstance(frame, Verdict)} == set(Outcome)
    assert any(example.data[1] & 1 for example in EXAMPLES if example.data[0] == 0x13)


# ------------------------------------------------------------------------------------------- limits

LIMITS = {
    "a frame, in bytes": codec.MAX_FRAME_BYTES,
    "a body, decompressed, in bytes": compression.MAX_BODY_BYTES,
    "a JSON message, in bytes": messages.MAX_JSON_BYTES,
    "a session number or an epoch": max(frames.MAX_SESSION, frames.MAX_EPOCH),
    "a position, or known tokens": frames.MAX_POSITION,
    "a token id": frames.MAX_TOKEN_ID,
    "tokens in a prompt": frames.MAX_PROMPT,
    "tokens in a run": frames.MAX_RUN,
    "tokens in a `q_hat`": MAX_K,
    "a deadline, in milliseconds": frames.MAX_DEADLINE_MS,
    "a reason, in bytes": frames.MAX_REASON_BYTES,
    "a count in JSON": messages.MAX_JSON_INTEGER,
    "turns in a prompt": messages.MAX_TURNS,
    "tokens asked for in a prompt": messages.MAX_ANSWER_TOKENS,
}


def test_the_codebook_of_the_examples_has_the_digest_that_the_page_says():
    assert f"`{CODEBOOK.digest}`" in TEXT


def test_the_limits_are_those_of_the_code():
    section = TEXT.split("\n## Limits\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+) \| ([\d,]+) \|$", section, re.MULTILINE)
    assert dict(rows) == {what: f"{limit:,}" for what, limit in LIMITS.items()}


def test_the_links_within_the_page_lead_somewhere():
    headings = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
        for line in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings
