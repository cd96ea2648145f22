"""Topics and fields in words. In: `schemas` and JSON Schemas. Out: tables in Markdown."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from deploy.reference import payloads
from schemas.messages import MAX_JSON_INTEGER
from schemas.topics import TOPIC_RULES, Role, Topics

# Who reads everything is said once and not in each row.
_HEADING = "| topic | from | to (and operators) | retained | QoS | payload |\n|---|---|---|---|---|---|\n"


def topic_table() -> str:
    """The topics as `schemas.topics` has them."""
    rows = []
    for rule in TOPIC_RULES:
        readers = ", ".join(role.value for role in rule.readers if role is not Role.OPERATOR)
        cells = (
            f"`{rule.pattern}`",
            ", ".join(role.value for role in rule.writers),
            readers,
            "yes" if rule.retained else "",
            str(rule.qos),
            rule.payload,
        )
        rows.append(row(cells))
    return _HEADING + "".join(rows)


def role_table(role: Role) -> str:
    """What one user may publish and read, by topic."""
    rows = ["| may | topic | message |\n|---|---|---|\n"]
    for rule in TOPIC_RULES:
        for word, roles in (("publish", rule.writers), ("read", rule.readers)):
            if role in roles:
                topic = Topics().filter_for(rule, role, "NAME")
                rows.append(row((word, f"`{topic}`", rule.payload)))
    return "".join(rows)


def message_table(kind: type[BaseModel]) -> str:
    """The fields of a JSON message as its model has them."""
    schema = payloads.plain_text(kind.model_json_schema())
    rows = ["| field | value | needed | |\n|---|---|---|---|\n"]
    for name, field in schema["properties"].items():
        needed = "yes" if name in schema.get("required", []) else _default(field)
        cells = (f"`{name}`", value_of(field, schema.get("$defs", {})), needed, field.get("description", ""))
        rows.append(row(cells))
    return "".join(rows)


def row(cells: tuple[str, ...]) -> str:
    """A row of a table."""
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"


def value_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a field may hold, in words."""
    if "anyOf" in field:
        (field,) = (choice for choice in field["anyOf"] if choice.get("type") != "null")
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        referred = definitions[name]
        return value_of(referred, definitions) if "enum" in referred else name
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in field["enum"])
    kind = field["type"]
    if kind == "array":
        return f"list of {value_of(field['items'], definitions)}{_bounds(field, 'Items')}"
    if kind == "object":
        return f"object of {value_of(field['additionalProperties'], definitions)}"
    if kind == "string":
        return f"text like `{field['pattern']}`" if "pattern" in field else f"text{_bounds(field, 'Length')}"
    if (field.get("minimum"), field.get("maximum")) == (0, MAX_JSON_INTEGER):
        return "count"
    return {"integer": "integer", "number": "number", "boolean": "true or false"}[kind] + _range(field)


def _default(field: dict[str, Any]) -> str:
    default = field.get("default", {})  # a schema leaves out what a factory makes
    return "no" if default is None else f"no: {json.dumps(default)}"


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
    return f", {over}{low:,} to {high:,}" if high is not None else f", from {over}{low:,}"
