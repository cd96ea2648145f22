"""Discovery messages: in the words that Home Assistant knows, with templates that read what is really sent.

A real Home Assistant takes them in tests/home_assistant/live.py, by hand; what is checked here keeps them so.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jinja2.sandbox
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.reference.payloads import example
from schemas import home_assistant
from schemas.home_assistant import Device, device_of, discovery, is_ours
from schemas.messages import AgentMetrics, AgentStatus, Message, Presence, Usage, WorkerMetrics, WorkerStatus
from schemas.topics import TOPIC_RULES, Role, Topics

TOPICS = Topics()
AGENT, WORKER = Device(Role.AGENT, "board.7"), Device(Role.WORKER, "cloud-1")
STATUS: dict[Device, AgentStatus | WorkerStatus] = {
    AGENT: example(AgentStatus),  # type: ignore[dict-item]
    WORKER: example(WorkerStatus),  # type: ignore[dict-item]
}
NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
DEVICES = st.builds(Device, st.sampled_from([Role.AGENT, Role.WORKER]), NAMES)

# What Home Assistant 2026.11 takes; it drops or refuses what it does not know.
TOP = {"device", "origin", "availability", "qos", "components"}
DEVICE = {"identifiers", "name", "manufacturer", "model", "model_id", "sw_version"}
ENTITY = {"platform", "name", "unique_id", "state_topic", "value_template", "device_class", "entity_category"}
OWN = {
    "sensor": {"state_class", "unit_of_measurement", "expire_after"},
    "binary_sensor": {"json_attributes_topic", "json_attributes_template", "availability"},
}
UNITS = {
    "data_size": {"B"},
    "duration": {"ms"},
    None: {"%", "tokens", "tokens/s", "sessions", "drafts", "messages"},
}


def config(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(discovery(TOPICS, device, STATUS[device]))
    return found


def render(template: str, message: Message) -> str:
    """As Home Assistant does it: Jinja in a sandbox, with the payload's JSON as `value_json`."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(value_json=json.loads(message.to_bytes()))


def shown(device: Device, *messages: Message) -> dict[str, str]:
    """What each entity shows that reads one of these messages, by its key."""
    topics = {
        AgentStatus: TOPICS.agent_status,
        AgentMetrics: TOPICS.agent_metrics,
        WorkerStatus: TOPICS.worker_status,
        WorkerMetrics: TOPICS.worker_metrics,
    }
    by_topic = {topics[type(message)](device.name): message for message in messages}
    return {
        key: render(part["value_template"], by_topic[part["state_topic"]])
        for key, part in config(device)["components"].items()
        if part["state_topic"] in by_topic
    }


# -------------------------------------------------------------------------------------------- form


@pytest.mark.parametrize("device", [AGENT, WORKER])
def test_a_discovery_message_says_nothing_that_home_assistant_does_not_know(device):
    found = config(device)
    assert set(found) == TOP
    assert set(found["device"]) == DEVICE
    assert found["origin"] == {"name": "Hunch"}
    for part in found["components"].values():
        assert set(part) <= ENTITY | OWN[part["platform"]]
        assert {"platform", "name", "unique_id", "state_topic", "value_template"} <= set(part)
        assert part.get("entity_category") in {None, "diagnostic"}


@pytest.mark.parametrize("device", [AGENT, WORKER])
def test_a_sensor_has_a_class_and_a_unit_that_go_together(device):
    for part in config(device)["components"].values():
        if part["platform"] == "sensor":
            assert part["state_class"] in {"measurement", "total_increasing"}
            assert part.get("unit_of_measurement", "%") in UNITS[part.get("device_class")]
        else:
            assert part["device_class"] == "connectivity"


@pytest.mark.parametrize("device", [AGENT, WORKER])
def test_entities_are_unique_and_named_after_their_device(device):
    ids = [part["unique_id"] for part in config(device)["components"].values()]
    assert len(set(ids)) == len(ids)
    assert all(each.startswith(f"{device.object_id}_") for each in ids)
    assert len({part["name"] for part in config(device)["components"].values()}) == len(ids)


@pytest.mark.parametrize("device", [AGENT, WORKER])
def test_what_is_read_is_the_devices_own_and_open_to_home_assistant(device):
    readable = {rule.kind for rule in TOPIC_RULES if Role.HOME_ASSISTANT in rule.readers}
    found = config(device)
    topics = {
        value for part in found["components"].values() for name, value in part.items() if "topic" in name
    }
    for topic in topics | {found["availability"][0]["topic"]}:
        parsed = TOPICS.parse(topic)
        assert parsed.kind in readable
        assert device.name in {parsed.agent, parsed.worker}


def test_a_long_name_of_a_model_is_cut():
    status = AgentStatus(state=Presence.ONLINE, boot=1, model="m" * 1000, version="v" * 1000)
    device = json.loads(discovery(TOPICS, AGENT, status))["device"]
    assert (len(device["model_id"]), len(device["sw_version"])) == (64, 64)


# ------------------------------------------------------------------------------------------- values


def test_an_agents_entities_show_what_its_messages_say():
    assert shown(AGENT, example(AgentStatus), example(AgentMetrics)) == {
        "connection": "ON",
        "worker": "ON",
        "speed": "48.8",
        "tokens": "40",
        "skipped": "72.5",
        "unverified": "0.0",
        "divergence": "1.3",
        "risk": "2.0",
        "threshold": "0.31",
        "bytes_up": "611",
        "bytes_down": "248",
        "round_trip": "21.4",
    }


def test_a_workers_entities_show_what_its_messages_say():
    assert shown(WORKER, example(WorkerStatus), example(WorkerMetrics)) == {
        "connection": "ON",
        "load": "31.0",
        "sessions": "2",
        "target_tokens": "5120",
        "drafts": "912",
        "accepted": "640",
        "recovered": "151",
        "refused": "0",
        "dropped": "2",
    }


def test_what_is_not_known_shows_as_unknown():
    nothing = AgentMetrics(request_id="q", threshold=-1.0, usage=Usage())
    alone = AgentStatus(state=Presence.ONLINE, boot=1, note="no worker is online")
    found = shown(AGENT, alone, nothing)
    assert (found.pop("connection"), found.pop("worker")) == ("ON", "OFF")
    assert (found.pop("tokens"), found.pop("threshold")) == ("0", "-1.0")
    assert set(found.values()) == {"None"}  # what Home Assistant takes for unknown


def test_a_device_is_available_as_its_status_says():
    (availability,) = config(AGENT)["availability"]
    for state in Presence:
        status = AgentStatus(state=state, boot=1)
        assert render(availability["value_template"], status) == state.value
        assert shown(AGENT, status)["connection"] == ("ON" if state is Presence.ONLINE else "OFF")


def test_which_worker_is_in_use_and_why_none_is_are_attributes():
    template = config(AGENT)["components"]["worker"]["json_attributes_template"]
    alone = AgentStatus(state=Presence.ONLINE, boot=1, note='all "full" <sorry>')
    assert json.loads(render(template, alone)) == {"worker": None, "note": 'all "full" <sorry>'}
    assert json.loads(render(template, example(AgentStatus)))["worker"] == "cloud-1"


def test_a_worker_that_misses_three_beats_shows_nothing():
    status = WorkerStatus(state=Presence.ONLINE, boot=1, beat_s=2.5)
    components = json.loads(discovery(TOPICS, WORKER, status))["components"]
    assert components["load"]["expire_after"] == components["sessions"]["expire_after"] == 8
    assert "expire_after" not in components["connection"]  # or a worker that is off would not be known to be


# -------------------------------------------------------------------------------------------- names


@given(DEVICES)
def test_a_device_is_found_again_by_its_topic(device):
    topic = device.config_topic("homeassistant")
    assert device_of("homeassistant", topic) == device
    # The pattern of Home Assistant's own discovery topics.
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", topic)


@given(DEVICES, DEVICES)
def test_no_two_devices_share_a_topic(one, other):
    assert (one == other) == (one.object_id == other.object_id)


@pytest.mark.parametrize(
    "topic",
    [
        "homeassistant/device/hunch-agent-a/config/more",
        "homeassistant/device/hunch-agent-/config",
        "homeassistant/device/hunch-agent-a_b/config",  # '_' is never alone
        "homeassistant/device/hunch-client-a/config",
        "homeassistant/device/zigbee/config",
        "homeassistant/sensor/hunch-agent-a/config",
        "elsewhere/device/hunch-agent-a/config",
        "hunch-agent-a/config",
    ],
)
def test_a_topic_that_is_none_of_ours_is_left_alone(topic):
    assert device_of("homeassistant", topic) is None


def test_only_what_was_made_for_a_device_under_this_root_is_ours():
    made = discovery(TOPICS, AGENT, STATUS[AGENT])
    assert is_ours(TOPICS, AGENT, made)
    assert not is_ours(Topics("other/v1"), AGENT, made)
    assert not is_ours(TOPICS, Device(Role.AGENT, "board_7"), made)
    for foreign in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"origin": {"name": "Hunch"}, "availability": []}',
        b"\xff",
        b"[" * 100_000,
    ):
        assert not is_ours(TOPICS, AGENT, foreign)


def test_the_birth_and_the_prefix_are_home_assistants_defaults():
    assert (home_assistant.DEFAULT_PREFIX, home_assistant.BIRTH) == ("homeassistant", b"online")
