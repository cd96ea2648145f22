"""Agents and workers as devices of Home Assistant. In: names and their status. Out: MQTT device discovery.

One retained message for each device, https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload.
What is shown comes from the topics that agents and workers publish anyway, read by templates.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from schemas.messages import AgentStatus, WorkerStatus
from schemas.topics import Role, Topics

DEFAULT_PREFIX = "homeassistant"
BIRTH = b"online"  # on `{prefix}/status`, when Home Assistant has started
_ORIGIN = "Hunch"
# What a board says of its model and version; Home Assistant puts no bound on what it stores of it.
_MAX_TEXT = 64
# As everywhere in Hunch: who misses three beats is not believed to be there.
_MISSED_BEATS = 3

# Home Assistant takes "None" for "not known"; `default` and `is number` keep missing fields out of its log.
_WHICH_WORKER = (
    "{{ {'worker': value_json.worker | default(none), 'note': value_json.note | default(none)} | tojson }}"
)
_SPEED = "{{ (value_json.usage.tokens / value_json.usage.seconds) | round(1) if value_json.usage.seconds else none }}"

# Units that Home Assistant can convert; for percentages and for units of our own it has no class.
_DEVICE_CLASSES = {"B": "data_size", "ms": "duration"}

_OBJECT = re.compile(r"hunch-(agent|worker)-([A-Za-z0-9_-]+)", re.ASCII)


@dataclass(frozen=True)
class Device:
    """An agent or a worker, by its name."""

    role: Role
    name: str

    @property
    def object_id(self) -> str:
        """Its name in discovery topics, which take no '.': 'gpu_0.de' is 'hunch-worker-gpu__0_-de'.

        No two devices share one, or a board could take another's place by the choice of its name.
        """
        return f"hunch-{self.role.value}-{self.name.replace('_', '__').replace('.', '_-')}"

    def config_topic(self, prefix: str = DEFAULT_PREFIX) -> str:
        """Where its discovery message is kept."""
        return f"{prefix}/device/{self.object_id}/config"

    def status_topic(self, topics: Topics) -> str:
        """Where it says whether it is there."""
        return (topics.agent_status if self.role is Role.AGENT else topics.worker_status)(self.name)


def config_filter(prefix: str) -> str:
    """Filter for the discovery messages of all devices, others' too."""
    return f"{prefix}/device/+/config"


def device_of(prefix: str, topic: str) -> Device | None:
    """The device that a discovery topic is for; None where it is none of ours."""
    parts = topic.removeprefix(f"{prefix}/device/").split("/")
    found = _OBJECT.fullmatch(parts[0]) if topic.startswith(f"{prefix}/device/") else None
    if found is None or parts[1:] != ["config"]:
        return None
    name = re.sub("_([_-])", lambda escaped: {"_": "_", "-": "."}[escaped[1]], found[2])
    device = Device(Role(found[1]), name)
    return device if device.object_id == parts[0] else None


def is_ours(topics: Topics, device: Device, payload: bytes) -> bool:
    """Whether a discovery message was made by `discovery`, for a device under this root."""
    try:
        config = json.loads(payload)
        own = (config["origin"]["name"], config["availability"][0]["topic"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return False
    return own == (_ORIGIN, device.status_topic(topics))


def discovery(topics: Topics, device: Device, status: AgentStatus | WorkerStatus) -> bytes:
    """The discovery message of a device that has this status."""
    status_topic = device.status_topic(topics)
    if isinstance(status, AgentStatus):
        model, components = "Edge agent", _agent(topics, device.name)
    else:
        model, components = "Cloud worker", _worker(topics, device.name, status.beat_s)
    connection = {
        "platform": "binary_sensor",
        "name": "Connection",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "state_topic": status_topic,
        "value_template": "{{ 'ON' if value_json.state == 'online' else 'OFF' }}",
        "availability": [],  # so that it shows "disconnected" where the others show nothing
    }
    components = {"connection": connection} | components
    config = {
        "device": {
            "identifiers": [device.object_id],
            "name": device.name,
            "manufacturer": "Hunch",
            "model": model,
            **({"model_id": status.model[:_MAX_TEXT]} if status.model else {}),
            **({"sw_version": status.version[:_MAX_TEXT]} if status.version else {}),
        },
        "origin": {"name": _ORIGIN},
        "availability": [{"topic": status_topic, "value_template": "{{ value_json.state }}"}],
        "qos": 1,
        "components": {
            key: part | {"unique_id": f"{device.object_id}_{key}"} for key, part in components.items()
        },
    }
    return json.dumps(config, ensure_ascii=False, separators=(",", ":")).encode()


def _agent(topics: Topics, name: str) -> dict[str, dict[str, Any]]:
    """What an agent's status says, and the metrics of its last answer."""
    status, metrics = topics.agent_status(name), topics.agent_metrics(name)
    return {
        "worker": {
            "platform": "binary_sensor",
            "name": "Worker",
            "device_class": "connectivity",
            "state_topic": status,
            "value_template": "{{ 'ON' if value_json.worker | default(none) else 'OFF' }}",
            "json_attributes_topic": status,
            "json_attributes_template": _WHICH_WORKER,
        },
        "speed": _measured(metrics, "Speed", _SPEED, unit="tokens/s"),
        "tokens": _measured(metrics, "Answer length", "{{ value_json.usage.tokens }}", unit="tokens"),
        "skipped": _measured(metrics, "Skipped", _share("skipped"), unit="%"),
        "unverified": _measured(metrics, "Unverified", _share("unverified"), unit="%"),
        "divergence": _measured(metrics, "Divergence", _number("usage.divergence", 100, 3), unit="%"),
        "risk": _measured(metrics, "Risk allowed", _number("risk", 100, 3), unit="%", aside=True),
        "threshold": _measured(metrics, "Threshold", _number("threshold", 1, 4), aside=True),
        "bytes_up": _measured(metrics, "Sent", _number("usage.bytes_up", 1, 0), unit="B"),
        "bytes_down": _measured(metrics, "Received", _number("usage.bytes_down", 1, 0), unit="B"),
        "round_trip": _measured(
            metrics, "Verdict round trip", _number("usage.round_trip_median_ms", 1, 1), unit="ms"
        ),
    }


def _worker(topics: Topics, name: str, beat_s: float) -> dict[str, dict[str, Any]]:
    """What a worker's status says at each beat, and its metrics at each sixth or so."""
    status, metrics = topics.worker_status(name), topics.worker_metrics(name)
    fresh = {"expire_after": math.ceil(_MISSED_BEATS * beat_s)}
    return {
        "load": _measured(status, "Load", _number("load", 100, 1), unit="%") | fresh,
        "sessions": _measured(status, "Sessions", "{{ value_json.sessions }}", unit="sessions") | fresh,
        "target_tokens": _counted(metrics, "Target tokens", "target_tokens", unit="tokens"),
        "drafts": _counted(metrics, "Drafts", "drafts", unit="drafts"),
        "accepted": _counted(metrics, "Accepted", "accepted", unit="tokens"),
        "recovered": _counted(metrics, "Recovered", "recovered", unit="tokens"),
        "refused": _counted(metrics, "Refused", "refused", unit="messages", aside=True),
        "dropped": _counted(metrics, "Dropped", "dropped.values() | sum", unit="messages", aside=True),
    }


def _share(field: str) -> str:
    """Template for a count of tokens as a percentage of the answer's."""
    usage = "value_json.usage"
    return f"{{{{ (100 * {usage}.{field} / {usage}.tokens) | round(1) if {usage}.tokens else none }}}}"


def _number(field: str, factor: int, digits: int) -> str:
    """Template for a number that may be missing."""
    value = f"value_json.{field}"
    shown = value if factor == 1 else f"({factor} * {value})"
    shown += f" | round({digits})" if digits else " | int"
    return f"{{{{ {shown} if {value} is number else none }}}}"


def _measured(
    topic: str,
    name: str,
    template: str,
    *,
    unit: str | None = None,
    aside: bool = False,
) -> dict[str, Any]:
    """A sensor whose value goes up and down; `aside` puts it under diagnostics."""
    sensor = {
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": template,
        "state_class": "measurement",
        "unit_of_measurement": unit,
        "device_class": _DEVICE_CLASSES.get(unit or ""),
        "entity_category": "diagnostic" if aside else None,
    }
    return {key: value for key, value in sensor.items() if value is not None}


def _counted(topic: str, name: str, field: str, *, unit: str, aside: bool = False) -> dict[str, Any]:
    """A sensor that counts from the worker's start; Home Assistant knows that such a count may begin anew."""
    sensor = _measured(topic, name, f"{{{{ value_json.{field} }}}}", unit=unit, aside=aside)
    return sensor | {"state_class": "total_increasing"}
