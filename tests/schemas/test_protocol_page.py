"""docs/protocol.md and the code say the same: every example is decoded, every table is made from the code.

Run this file itself to write the generated tables into the page anew: `python tests/schemas/test_protocol_page.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from schemas import codec, compression, frames, messages
from schemas.codebook import Codebook
from schemas.compression import BodyCodec
from schemas.distribution import MAX_K
from schemas.frames import Draft, Open, Outcome, Verdict
from schemas.packing import Reader
from schemas.profile import Profile
from schemas.sampling import SamplingParameters
from schemas.topics import DEFAULT_ROOT, TOPIC_RULES, TopicKind

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
TEXT = PAGE.read_text(encoding="utf-8")
BODY_CODEC = BodyCodec()
# That of the page's examples.
CODEBOOK = Codebook(b"hunch", (7, 2))

# --------------------------------------------------------------------------------- generated tables

# Who reads everything is said once and not in each row.
HEADING = "| topic | from | to (and operators) | retained | QoS | payload |\n|---|---|---|---|---|---|\n"
BINARY = {TopicKind.OPEN, TopicKind.DRAFT, TopicKind.VERDICT}


def topic_table() -> str:
    """The topics as `schemas.topics` has them."""
    rows = []
    for rule in TOPIC_RULES:
        readers = ", ".join(role.value for role in rule.readers if role.value != "operator")
        cells = (
            f"`{rule.pattern}`",
            ", ".join(role.value for role in rule.writers),
            readers,
            "yes" if rule.retained else "",
            str(rule.qos),
            rule.payload,
        )
        rows.append(_row(cells))
    return HEADING + "".join(rows)


def message_table(kind: type[BaseModel]) -> str:
    """The fields of a JSON message as its model has them."""
    schema = kind.model_json_schema()
    definitions = schema.get("$defs", {})
    topic = re.match(r"`[^`]+/[^`]+`", kind.__doc__ or "")
    title = f"**{kind.__name__}**" + (f", {topic.group()}" if topic else "")
    rows = [f"{title}\n\n| field | value | needed | |\n|---|---|---|---|\n"]
    for name, field in schema["properties"].items():
        needed = "yes" if name in schema.get("required", []) else _default(field)
        cells = (f"`{name}`", value_of(field, definitions), needed, field.get("description", ""))
        rows.append(_row(cells))
    return "".join(rows)


def _row(cells: tuple[str, ...]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"


def _default(field: dict[str, Any]) -> str:
    default = field.get("default", {})  # a schema leaves out what a factory makes
    return "no" if default is None else f"no: {json.dumps(default)}"


def value_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a field may hold, in words."""
    if "anyOf" in field:
        (field,) = (choice for choice in field["anyOf"] if choice.get("type") != "null")
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        referred = definitions[name]
        return value_of(referred, definitions) if "enum" in referred else name
    if "enum" in field:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in field["enum"])
    kind = field["type"]
    if kind == "array":
        return f"list of {value_of(field['items'], definitions)}{_bounds(field, 'Items')}"
    if kind == "object":
        return f"object of {value_of(field['additionalProperties'], definitions)}"
    if kind == "string":
        return f"text like `{field['pattern']}`" if "pattern" in field else f"text{_bounds(field, 'Length')}"
    if (field.get("minimum"), field.get("maximum")) == (0, messages.MAX_JSON_INTEGER):
        return "count"
    return {"integer": "integer", "number": "number", "boolean": "true or false"}[kind] + _range(field)


def _bounds(field: dict[str, Any], what: str) -> str:
    low, high = field.get(f"min{what}"), field.get(f"max{what}")
    if high is None:
        return "" if low is None else f", at least {low}"
    return f", up to {high:,}" if low is None else f", {low} to {high:,}"


def _range(field: dict[str, Any]) -> str:
    low = field.get("minimum", field.get("exclusiveMinimum"))
    if low is None:
        return ""
    over = "over " if "exclusiveMinimum" in field else ""
    high = field.get("maximum")
    if "exclusiveMaximum" in field:  # integers alone
        high = field["exclusiveMaximum"] - 1
    return f", {over}{low:g} to {high:,}" if high is not None else f", from {over}{low:g}"


assert issubclass(Profile, messages.Message)  # and so are its parts, once their module is loaded
JSON_KINDS: tuple[type[BaseModel], ...] = (*messages.Message.__subclasses__(), SamplingParameters)
TABLES = {"topics": topic_table()} | {kind.__name__: message_table(kind) for kind in JSON_KINDS}
GENERATED = re.compile(r"<!-- generated: (\w+) -->\n\n(.*?)\n<!-- end -->", re.DOTALL)


def with_tables(text: str) -> str:
    """The page with every generated table as the code has it now."""
    return GENERATED.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n\n{TABLES[found[1]]}\n<!-- end -->", text
    )


@pytest.mark.parametrize("name", TABLES)
def test_a_generated_table_is_as_the_code_has_it(name):
    found = [table for table_name, table in GENERATED.findall(TEXT) if table_name == name]
    assert found == [TABLES[name]], "run python tests/schemas/test_protocol_page.py"


@pytest.mark.parametrize("kind", messages.Message.__subclasses__(), ids=lambda kind: kind.__name__)
def test_null_is_taken_where_a_table_says_no_alone(kind):
    table = TABLES[kind.__name__]
    for name in kind.model_fields:
        said = re.search(rf"^\| `{name}` \| .*? \| (yes|no|no: .*?) \|", table, re.MULTILINE)
        assert said is not None
        # Other fields are missing or wrong, too; what matters is whether this one is complained about.
        with pytest.raises(ValidationError) as caught:
            kind.model_validate_json(
                json.dumps({name: None, "state": 1, "tokens": -1, "drafts": -1}), strict=True
            )
        assert (name in {error["loc"][0] for error in caught.value.errors()}) == (said[1] != "no")


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


# ------------------------------------------------------------------------------------- JSON examples

JSON_EXAMPLES = re.findall(r"```json (\w+)\n(.*?)\n```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("name", "text"), JSON_EXAMPLES)
def test_an_example_message_is_read_and_sent_as_it_stands(name, text):
    message = messages.parse_message(getattr(messages, name), text.encode())
    assert json.loads(message.to_bytes()) == json.loads(text)


def test_there_is_an_example_of_every_message_that_has_a_topic():
    payloads = {rule.payload for rule in TOPIC_RULES if rule.kind not in BINARY}
    assert {name for name, _ in JSON_EXAMPLES} == payloads - {"Profile"}


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


if __name__ == "__main__":
    PAGE.write_text(with_tables(TEXT), encoding="utf-8")
