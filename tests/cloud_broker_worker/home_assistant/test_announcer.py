"""The announcer and the purge at a real Mosquitto, with the rights that the broker's access list gives them."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloud_broker_worker.home_assistant import announcer as announcer_module
from cloud_broker_worker.home_assistant import cli
from cloud_broker_worker.home_assistant.announcer import Announcer
from cloud_broker_worker.home_assistant.settings import HomeAssistantSettings
from cloud_broker_worker.private_broker import PrivateBroker
from runtime.mqtt import Connection, Inbox
from schemas.errors import ConfigurationError, LinkError
from schemas.home_assistant import Device, config_filter, discovery
from schemas.messages import AgentStatus, Presence
from schemas.topics import Role, Topics
from tests.conftest import Connect
from tests.end_to_end.stage import command, environment, running
from tests.mqtt_helpers import DEADLINE_S, listen, wait_for

TOPICS = Topics()
BOARD = Device(Role.AGENT, "agent-1")
STATUS = AgentStatus(state=Presence.ONLINE, boot=1, model="draft")
CONFIG = discovery(TOPICS, BOARD, STATUS)


@pytest.fixture(autouse=True)
def _hasten(monkeypatch) -> None:
    monkeypatch.setattr(announcer_module, "_AFTER_BIRTH_S", (0.0, 0.01))


@pytest.fixture
def own(private_broker: Callable[[], PrivateBroker]) -> PrivateBroker:
    return private_broker()


@pytest.fixture
def agent(own: PrivateBroker, connect: Connect) -> Connection:
    return connect("agent-1", at=own)


@pytest.fixture
def home(own: PrivateBroker, connect: Connect) -> Connection:
    """Home Assistant itself."""
    return connect("home-1", at=own)


@pytest.fixture
def seen(home: Connection) -> Inbox:
    """The discovery messages that Home Assistant gets."""
    return listen(home, config_filter("homeassistant"))


def login(broker: PrivateBroker, name: str = "home-2") -> dict[str, Any]:
    return {
        "name": name,
        "broker": f"mqtt://{broker.host}:{broker.port}",
        "username": name,
        "password": broker.credentials[name],
    }


@contextlib.contextmanager
def announcing(broker: PrivateBroker, name: str = "home-2") -> Iterator[Announcer]:
    with Announcer(HomeAssistantSettings(**login(broker, name))) as announcer:
        thread = threading.Thread(target=announcer.run)
        thread.start()
        try:
            yield announcer
        finally:
            announcer.stop()
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def next_of(inbox: Inbox) -> tuple[str, bytes]:
    message = inbox.get(DEADLINE_S)
    assert message is not None
    return message.topic, message.payload


def say(agent: Connection, payload: bytes) -> None:
    agent.publish(TOPICS.agent_status("agent-1"), payload, qos=1, retain=True)


def test_an_agent_that_is_there_already_and_one_that_comes_are_announced(own, agent, seen, connect):
    say(agent, STATUS.to_bytes())
    with announcing(own):
        assert next_of(seen) == (BOARD.config_topic(), CONFIG)
        other = connect("agent-2", at=own)
        other.publish(TOPICS.agent_status("agent-2"), STATUS.to_bytes(), qos=1, retain=True)
        assert next_of(seen)[0] == Device(Role.AGENT, "agent-2").config_topic()


def test_all_are_announced_again_when_home_assistant_says_that_it_has_started(own, agent, home, seen):
    say(agent, STATUS.to_bytes())
    with announcing(own):
        assert next_of(seen) == (BOARD.config_topic(), CONFIG)
        home.publish("homeassistant/status", b"offline", qos=1)
        home.publish("homeassistant/status", b"online", qos=1)
        assert next_of(seen) == (BOARD.config_topic(), CONFIG)
        say(agent, b"")
        assert next_of(seen) == (BOARD.config_topic(), b"")  # and nothing between


def test_announcements_are_kept_for_a_home_assistant_that_starts_later(own, agent, home, seen):
    say(agent, STATUS.to_bytes())
    with announcing(own):
        next_of(seen)
    late = listen(home, config_filter("homeassistant"))
    message = late.get(DEADLINE_S)
    assert message is not None
    assert (message.topic, message.payload, message.retained) == (BOARD.config_topic(), CONFIG, True)


def test_who_was_revoked_while_nobody_announced_is_removed_at_the_next_start(own, home, seen):
    home.publish(BOARD.config_topic(), CONFIG, qos=1, retain=True)
    assert next_of(seen) == (BOARD.config_topic(), CONFIG)
    with announcing(own):
        assert next_of(seen) == (BOARD.config_topic(), b"")


def test_a_broken_status_is_ignored(own, agent, seen):
    with announcing(own):
        say(agent, b'{"state": "maybe"}')
        say(agent, STATUS.to_bytes())
        assert next_of(seen) == (BOARD.config_topic(), CONFIG)


def test_an_agent_cannot_announce_anything(agent, home, seen):
    status = listen(home, TOPICS.agent_status("agent-1"))
    agent.publish(BOARD.config_topic(), b"forged", qos=1, retain=True)
    agent.publish(TOPICS.agent_status("agent-1"), b"after that")
    assert next_of(status)[1] == b"after that"
    home.publish(BOARD.config_topic(), b"the first that comes through")
    assert next_of(seen)[1] == b"the first that comes through"


def test_an_announcer_without_the_right_to_announce_says_so(own, agent, monkeypatch, caplog):
    monkeypatch.setattr(announcer_module, "_ECHO_S", 0.05)
    say(agent, STATUS.to_bytes())
    with caplog.at_level(logging.WARNING), announcing(own, "operator-1"):
        wait_for(lambda: "may operator-1 write it?" in caplog.text)


def test_the_command_announces_until_it_is_told_to_end(own, agent, seen, tmp_path):
    say(agent, STATUS.to_bytes())
    settings = environment("HUNCH_HOME_ASSISTANT_", login(own))
    argv = command("cloud-broker-worker", "home-assistant", "run")
    with running(tmp_path / "log", argv, settings) as program:
        program.wait_for_output("announcing what is under hunch/v1 on homeassistant/device")
        assert next_of(seen) == (BOARD.config_topic(), CONFIG)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


# -------------------------------------------------------------------------------------------- purge


def flags(broker: PrivateBroker, name: str = "home-2") -> list[str]:
    return [f"--{setting}={value}" for setting, value in login(broker, name).items()]


def purge(*arguments: str) -> None:
    cli.main(["purge", *arguments])


def test_a_purge_removes_the_fleet_and_nothing_else(own, home, seen, capsys):
    for name in (f"board.{index}" for index in range(40)):  # more than are removed at once
        device = Device(Role.AGENT, name)
        home.publish(device.config_topic(), discovery(TOPICS, device, STATUS), qos=1, retain=True)
        next_of(seen)
    for topic in ("homeassistant/device/zigbee/config", "homeassistant/device/hunch-agent-x/config"):
        home.publish(topic, b'{"origin": {"name": "somebody"}}', qos=1, retain=True)
        next_of(seen)
    purge(*flags(own))
    removed = {next_of(seen) for _ in range(40)}
    assert removed == {(Device(Role.AGENT, f"board.{index}").config_topic(), b"") for index in range(40)}
    assert "removed agent board.12\n" in capsys.readouterr().out
    purge(*flags(own))
    assert capsys.readouterr().out.startswith("nothing of hunch/v1 was announced")


def test_a_purge_that_the_broker_does_not_take_says_so(own, home, seen, monkeypatch):
    monkeypatch.setattr("cloud_broker_worker.home_assistant.purge._GONE_S", 0.1)
    home.publish(BOARD.config_topic(), CONFIG, qos=1, retain=True)
    next_of(seen)
    # As Mosquitto does it for who has no right: the message is acknowledged, and gone.
    monkeypatch.setattr(Connection, "publish", lambda *_, **__: None)
    with pytest.raises(ConfigurationError, match=r"1 devices are still there, .*may home-2 write it\?"):
        purge(*flags(own))


def test_a_purge_without_a_broker_says_so(own):
    own.__exit__(None, None, None)
    with pytest.raises(LinkError):
        purge(*flags(own), "--connect-timeout-s=0.2")


@pytest.mark.parametrize("setting", ["prefix", "birth-topic"])
def test_a_topic_that_cannot_be_is_refused_by_name(setting):
    with pytest.raises(ConfigurationError, match=f"--{setting} "):
        cli.main(["run", f"--{setting}=home/#"])
