"""docs/reference/mqtt.md. In: `schemas`. Out: its text."""

from __future__ import annotations

import json

from pydantic import BaseModel

from deploy.reference import payloads, words
from schemas.home_assistant import DEFAULT_PREFIX
from schemas.messages import Message
from schemas.sampling import SamplingParameters
from schemas.topics import DEFAULT_ROOT, TOPIC_RULES, Role, TopicRule, Topics

_HEAD = f"""# MQTT reference

<!-- Written by `make reference` from schemas/; changes here are overwritten. -->

Every topic, who publishes and reads it, and what it carries. The same for programs: [asyncapi.json](asyncapi.json)
(AsyncAPI 3) and [a JSON Schema for each message](schemas/). The rules behind it, and the binary frames byte by byte,
are in [the protocol](../protocol.md).

All topics lie under one root, `{DEFAULT_ROOT}` unless configured otherwise.
"""
_FIELDS = """JSON messages are UTF-8, one object a message; unknown fields are ignored unless said otherwise. In their
tables, a field that is not needed has the value that stands there when it is left out; where nothing stands there,
it may also be `null`. A *count* is an integer from 0 to 2^53 - 1.
"""
_ROLES = f"""## By role

What the broker's access list lets a user called NAME do. One of the role *{Role.HOME_ASSISTANT.value}* may also
publish and read under `{DEFAULT_PREFIX}/`, which is [Home Assistant's](../home-assistant.md).
"""


def text() -> str:
    """The whole page."""
    sections = [
        "## Topics\n",
        words.topic_table(),
        _FIELDS,
        *(_topic(rule) for rule in TOPIC_RULES),
        "## Parts of messages\n",
        *(f"### {kind.__name__}\n\n{_fields(kind)}" for kind in parts()),
        _ROLES,
        *(f"### {role.value.capitalize()}\n\n{words.role_table(role)}" for role in Role),
    ]
    return "\n".join([_HEAD, *sections])


def _topic(rule: TopicRule) -> str:
    writers = " or ".join(role.value for role in rule.writers)
    readers = ", ".join(role.value for role in rule.readers)
    how = f"QoS {rule.qos}" + (", retained" if rule.retained else "")
    messages = [
        _message(kind) if issubclass(kind, Message) else _frame(kind) for kind in payloads.kinds_of(rule)
    ]
    head = (
        f"### `{rule.pattern}`\n\n"
        f"{getattr(Topics, rule.kind.value).__doc__}\n\n"
        f"Published by: {writers} ({how}). Read by: {readers}.\n"
    )
    return "\n".join([head, *messages])


def _message(kind: type[Message]) -> str:
    example = json.loads(payloads.example(kind).to_bytes())
    return (
        f"[**{kind.__name__}**](schemas/{kind.__name__}.json): {payloads.summary(kind)}\n\n"
        f"{words.message_table(kind)}\n"
        f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```\n"
    )


def _frame(kind: type) -> str:
    section = {"Draft": "ask"}.get(kind.__name__, kind.__name__.lower())
    data = payloads.example_frame(kind)
    lines = "\n".join(data[start : start + 24].hex(" ") for start in range(0, len(data), 24))
    return (
        f"[**{kind.__name__}**](../protocol.md#{section}), binary. {payloads.summary(kind)} "
        f"An example, {len(data)} bytes:\n\n```\n{lines}\n```\n"
    )


def _fields(kind: type[BaseModel]) -> str:
    strict = "" if kind.model_config.get("extra") != "forbid" else " Unknown fields are refused here."
    return f"{payloads.summary(kind)}{strict}\n\n{words.message_table(kind)}"


def parts() -> list[type[BaseModel]]:
    """The models that occur within messages, in the order in which the code has them."""
    return [
        *(kind for kind in Message.__subclasses__() if kind not in payloads.JSON_KINDS),
        SamplingParameters,
    ]
