"""The topics as an AsyncAPI 3 document. In: `schemas`. Out: a JSON value. Pure.

AsyncAPI describes one application; this document describes all roles, so every operation is named after
who does it and carries that role as its tag.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from cloud_broker_worker.broker_texts import MAX_PACKET_BYTES
from deploy.reference import payloads
from schemas import codec
from schemas.messages import Message
from schemas.topics import DEFAULT_ROOT, MAX_NAME_LENGTH, TOPIC_RULES, Role, TopicRule, Topics

_BINDING = "0.2.0"  # of the MQTT bindings, the first with MQTT 5
_NAME = f"1 to {MAX_NAME_LENGTH} of the characters A-Z a-z 0-9 . _ -"
_PARAMETERS = {
    "agent": f"An agent's name: {_NAME}. Also its MQTT user name and client id.",
    "worker": f"A worker's name: {_NAME}. Also its MQTT user name and client id.",
    "id": f"A request's id, chosen by who asks, or a profile's: {_NAME}.",
}
_ROLES = {
    Role.AGENT: "a board with the draft model",
    Role.WORKER: "a process in the cloud with the target model",
    Role.CLIENT: "any program that asks an agent over MQTT",
    Role.OPERATOR: "who watches the fleet, and changes nothing",
    Role.HOME_ASSISTANT: "Home Assistant, and who tells it of agents and workers",
}


def document() -> dict[str, Any]:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hunch",
            "version": str(codec.VERSION),
            "description": (
                "What agents, workers and other MQTT clients say to each other. All addresses lie under one "
                f"root, here the default {DEFAULT_ROOT}; it can be set otherwise. Who sent a message is read from "
                "its topic, which the broker guards. The rules of the binary frames, and all that a schema "
                "cannot say, are in protocol.md."
            ),
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": role.value, "description": _ROLES[role]} for role in Role],
        },
        "defaultContentType": "application/json",
        "servers": {"plain": _server("mqtt", 1883), "tls": _server("secure-mqtt", 8883)},
        "channels": {rule.kind.value: _channel(rule) for rule in TOPIC_RULES},
        "operations": dict(_operations()),
        "components": {
            "messages": {
                kind.__name__: _json_message(kind) if issubclass(kind, Message) else _frame_message(kind)
                for rule in TOPIC_RULES
                for kind in payloads.kinds_of(rule)
            },
            "schemas": _schemas(),
            "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
            "securitySchemes": {
                "certificate": {"type": "X509", "description": "the name is the certificate's common name"},
                "password": {"type": "userPassword", "description": "the name is the user name"},
            },
        },
    }


def _server(protocol: str, port: int) -> dict[str, Any]:
    schemes = ("certificate", "password") if protocol == "secure-mqtt" else ("password",)
    return {
        "host": f"{{host}}:{port}",
        "protocol": protocol,
        "protocolVersion": "5.0",
        "description": "An MQTT 5 broker with an access list for each name.",
        "variables": {"host": {"default": "127.0.0.1"}},
        "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in schemes],
        "bindings": {
            "mqtt": {
                "cleanSession": True,
                "sessionExpiryInterval": 0,
                "maximumPacketSize": MAX_PACKET_BYTES,
                "bindingVersion": _BINDING,
            }
        },
    }


def _channel(rule: TopicRule) -> dict[str, Any]:
    names = [level[1:-1] for level in rule.pattern.split("/") if level[0] == "{"]
    return {
        "address": f"{DEFAULT_ROOT}/{rule.pattern}",
        "summary": getattr(Topics, rule.kind.value).__doc__,
        "messages": {
            kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}
            for kind in payloads.kinds_of(rule)
        },
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in names},
    }


def _operations() -> list[tuple[str, dict[str, Any]]]:
    """What each role sends and receives; only who sends decides about QoS and retaining."""
    found = []
    for role in Role:
        for rule in TOPIC_RULES:
            common = {
                "channel": {"$ref": f"#/channels/{rule.kind.value}"},
                "tags": [{"name": role.value}],
            }
            if role in rule.writers:
                mqtt = {"qos": rule.qos, "retain": rule.retained, "bindingVersion": _BINDING}
                operation = {"action": "send", **common, "bindings": {"mqtt": mqtt}}
                found.append((f"{role.value}_sends_{rule.kind.value}", operation))
            if role in rule.readers:
                found.append((f"{role.value}_receives_{rule.kind.value}", {"action": "receive", **common}))
    return found


def _json_message(kind: type[Message]) -> dict[str, Any]:
    return {
        "name": kind.__name__,
        "title": kind.__name__,
        "summary": payloads.summary(kind),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "examples": [{"payload": payloads.example(kind).model_dump(mode="json", exclude_none=True)}],
    }


def _frame_message(kind: type) -> dict[str, Any]:
    return {
        "name": kind.__name__,
        "title": kind.__name__,
        "summary": payloads.summary(kind),
        "description": "A binary frame; protocol.md shows it byte by byte.",
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
        "bindings": {"mqtt": {"contentType": "application/octet-stream", "bindingVersion": _BINDING}},
    }


def _schemas() -> dict[str, Any]:
    """The schemas of all JSON messages and their parts, once each."""
    _, found = models_json_schema(
        [(kind, "validation") for kind in payloads.JSON_KINDS], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = _without_siblings(payloads.plain_text(found["$defs"]))
    return schemas


def _without_siblings(value: Any) -> Any:
    """References that stand alone: what AsyncAPI's schemas derive from (draft 7) ignores all beside one."""
    if isinstance(value, list):
        return [_without_siblings(part) for part in value]
    if not isinstance(value, dict):
        return value
    value = {name: _without_siblings(part) for name, part in value.items()}
    if "$ref" in value and len(value) > 1:
        return {"allOf": [{"$ref": value.pop("$ref")}], **value}
    return value
