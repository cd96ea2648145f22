"""docs/reference is what the code says now, its schemas take what the code takes, its document is AsyncAPI."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from deploy.reference import page, payloads, words
from deploy.reference.__main__ import DOCS, files
from schemas import codec, frames
from schemas.compression import BodyCodec
from schemas.errors import WireError
from schemas.messages import Message, Prompt, parse_message
from schemas.sampling import SamplingParameters
from schemas.topics import DEFAULT_ROOT, TOPIC_RULES, Role

REFERENCE = DOCS / "reference"
DOCUMENT: dict[str, Any] = json.loads((REFERENCE / "asyncapi.json").read_text(encoding="utf-8"))
PAGE = (REFERENCE / "mqtt.md").read_text(encoding="utf-8")
named = pytest.mark.parametrize("kind", payloads.JSON_KINDS, ids=lambda kind: kind.__name__)


def published_schema(kind: type[Message]) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(
        (REFERENCE / "schemas" / f"{kind.__name__}.json").read_text(encoding="utf-8")
    )
    return schema


def takes(schema: dict[str, Any], value: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def parses(kind: type[Message], value: object) -> bool:
    try:
        parse_message(kind, json.dumps(value).encode())
    except WireError:
        return False
    return True


# ------------------------------------------------------------------------------------------ in step


def test_what_is_generated_is_what_is_committed():
    wanted = files()
    stale = [str(path) for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run make reference"
    assert {path for path in REFERENCE.rglob("*.*") if path.is_file()} <= set(wanted)


def test_each_topic_stands_on_the_page_with_who_publishes_and_who_reads_it():
    for rule in TOPIC_RULES:
        section = PAGE.split(f"### `{rule.pattern}`\n")[1].split("\n### ")[0]
        said = re.search(r"Published by: (.+) \(QoS (\d)(, retained)?\)\. Read by: (.+)\.", section)
        assert said is not None
        assert said[1].split(" or ") == [role.value for role in rule.writers]
        assert (int(said[2]), bool(said[3])) == (rule.qos, rule.retained)
        assert said[4].split(", ") == [role.value for role in rule.readers]
        assert all(f"**{kind.__name__}**" in section for kind in payloads.kinds_of(rule))


@pytest.mark.parametrize("role", Role)
def test_each_role_has_exactly_the_operations_that_the_rules_give_it(role):
    operations = {
        (operation["action"], operation["channel"]["$ref"].removeprefix("#/channels/"))
        for operation in DOCUMENT["operations"].values()
        if operation["tags"] == [{"name": role.value}]
    }
    assert operations == {
        (action, rule.kind.value)
        for rule in TOPIC_RULES
        for action, roles in (("send", rule.writers), ("receive", rule.readers))
        if role in roles
    }


def test_each_role_is_explained():
    assert [tag["name"] for tag in DOCUMENT["info"]["tags"]] == [role.value for role in Role]
    assert all(tag["description"] for tag in DOCUMENT["info"]["tags"])


def test_each_channel_has_the_address_and_each_sender_the_qos_of_its_rule():
    for rule in TOPIC_RULES:
        assert DOCUMENT["channels"][rule.kind.value]["address"] == f"{DEFAULT_ROOT}/{rule.pattern}"
        for role in rule.writers:
            mqtt = DOCUMENT["operations"][f"{role.value}_sends_{rule.kind.value}"]["bindings"]["mqtt"]
            assert (mqtt["qos"], mqtt["retain"]) == (rule.qos, rule.retained)


def test_each_field_of_each_message_is_explained():
    unexplained = [
        f"{kind.__name__}.{name}"
        for kind in [*payloads.JSON_KINDS, *page.parts()]
        for name, field in kind.model_fields.items()
        if not field.description
    ]
    assert not unexplained


# ------------------------------------------------------------------------------------ as it is said


@named
def test_an_example_fits_its_schema_and_is_read_as_it_stands(kind):
    sent = payloads.example(kind).to_bytes()
    assert takes(published_schema(kind), json.loads(sent))
    assert parse_message(kind, sent) == payloads.example(kind)
    (example,) = DOCUMENT["components"]["messages"][kind.__name__]["examples"]
    assert example["payload"] == json.loads(sent)


@named
def test_the_schemas_of_the_document_are_those_of_the_files(kind):
    """Written for two readers, in draft 7 and draft 2020-12, they take and refuse the same."""
    reference = {"allOf": [{"$ref": f"#/components/schemas/{kind.__name__}"}]}
    within = jsonschema.Draft7Validator(reference | {"components": DOCUMENT["components"]})
    good = json.loads(payloads.example(kind).to_bytes())
    for value in [good, *broken(good)]:
        assert within.is_valid(value) == takes(published_schema(kind), value), value


def broken(good: dict[str, Any]) -> list[dict[str, Any]]:
    """The same message with each of its fields missing, negative, or an object."""
    missing = [{key: value for key, value in good.items() if key != name} for name in good]
    wrong_values: list[Any] = [-1, {}, [], None, 2**70]
    return missing + [good | {name: wrong} for name in good for wrong in wrong_values]


@named
def test_a_schema_takes_what_the_code_takes_and_refuses_what_it_refuses(kind):
    good = json.loads(payloads.example(kind).to_bytes())
    for value in broken(good):
        assert takes(published_schema(kind), value) == parses(kind, value), value


@given(
    st.fixed_dictionaries(
        {"id": st.sampled_from(["q-1", "", "a/b"])},
        optional={
            "text": st.sampled_from(["", "x", None]),
            "messages": st.sampled_from([None, [], [{"role": "user", "content": ""}]]),
            "raw": st.booleans(),
            "sampling": st.sampled_from(
                [None, {}, {"temperature": 0}, {"temperature": 1e-4}, {"temperature": 1e-3}, {"top_q": 1}]
            ),
        },
    )
)
def test_the_schema_of_a_prompt_knows_which_fields_go_together(value):
    assert takes(published_schema(Prompt), value) == parses(Prompt, value)


@pytest.mark.parametrize(
    "kind", [kind for kinds in payloads.FRAMES.values() for kind in kinds], ids=lambda kind: kind.__name__
)
def test_an_example_frame_on_the_page_decodes(kind):
    text = PAGE.split(f"[**{kind.__name__}**]")[1].split("```")[1]
    data = bytes.fromhex(text)
    match kind:
        case frames.Open:
            frame: object = codec.decode_open(data, BodyCodec())
        case frames.Draft:
            frame = codec.decode_draft(data, BodyCodec())
        case _:
            frame = codec.decode_worker_frame(data)
    assert type(frame) is kind


def as_model(document: dict[str, Any]) -> None:
    """Check a document against an AsyncAPI 3 object model that was written by others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two of its fields shadow pydantic's own
        from asyncapi3.models import AsyncAPI3
    AsyncAPI3.model_validate(document)


def test_the_document_is_asyncapi_3():
    as_model(DOCUMENT)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [(("action",), "publish"), (("bindings", "mqtt", "qos"), 7), (("chanel",), {})],
    ids=["an action of version 2", "a QoS that is none", "a field that is none"],
)
def test_a_document_that_is_not_asyncapi_3_would_be_found_out(place, wrong):
    document = json.loads(json.dumps(DOCUMENT))
    at = document["operations"]["agent_sends_open"]
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = wrong
    with pytest.raises(ValidationError):
        as_model(document)


def references(value: object) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if "$ref" in value else set()
    return own.union(*(references(part) for part in value.values()))


def test_each_reference_leads_somewhere():
    for reference in references(DOCUMENT):
        at: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            at = at[name]
        assert at


def test_the_links_of_the_page_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", PAGE):
        assert (REFERENCE / target).exists(), target
    headings = set(re.findall(r"^### (\w+)$", (DOCS / "protocol.md").read_text(), re.MULTILINE))
    assert set(re.findall(r"protocol\.md#([\w-]+)\)", PAGE)) <= {heading.lower() for heading in headings}


# -------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("kind", Message.__subclasses__(), ids=lambda kind: kind.__name__)
def test_null_is_taken_where_a_table_says_no_alone(kind):
    for name in kind.model_fields:
        said = re.search(
            rf"^\| `{name}` \| .*? \| (yes|no|no: .*?) \|", words.message_table(kind), re.MULTILINE
        )
        assert said is not None
        # Other fields are missing or wrong, too; what matters is whether this one is complained about.
        with pytest.raises(ValidationError) as caught:
            kind.model_validate_json(
                json.dumps({name: None, "state": 1, "tokens": -1, "drafts": -1}), strict=True
            )
        assert (name in {error["loc"][0] for error in caught.value.errors()}) == (said[1] != "no")


@pytest.mark.parametrize(
    "kind", [*Message.__subclasses__(), SamplingParameters], ids=lambda kind: kind.__name__
)
def test_each_message_and_each_part_has_its_table_on_the_page(kind: type[BaseModel]):
    assert PAGE.count(words.message_table(kind)) == 1
