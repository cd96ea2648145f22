"""The broker's set-up: the files that are written, and one clear line where they cannot be."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

import pytest

from cloud_broker_worker import broker as broker_module
from cloud_broker_worker.broker import (
    BrokerPlan,
    BrokerUser,
    acl_text,
    config_text,
    generate_password,
    write_broker,
)
from cloud_broker_worker.broker_texts import emqx_acl_text
from schemas.errors import ConfigurationError
from schemas.topics import Role


def plan_in(folder: Path, **changes) -> BrokerPlan:
    users = (BrokerUser("agent-1", Role.AGENT, "pass-1"), BrokerUser("worker-1", Role.WORKER, "pass-2"))
    return BrokerPlan(**{"folder": folder, "port": 18_830, "users": users, **changes})


def test_the_files_can_be_read_by_their_owner_alone_and_hold_no_password(tmp_path):
    plan = plan_in(tmp_path / "broker")
    assert write_broker(plan) == plan.config_file
    for path in (plan.config_file, plan.acl_file, plan.password_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "pass-" not in path.read_text()
    assert re.findall(r"^([^:]+):\$7\$", plan.password_file.read_text(), re.MULTILINE) == [
        "agent-1",
        "worker-1",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files over")
def test_root_hands_the_files_to_the_account_that_mosquitto_takes(tmp_path):
    plan = plan_in(tmp_path / "broker")
    write_broker(plan)
    owners = {path.owner() for path in (plan.folder, plan.config_file, plan.acl_file, plan.password_file)}
    assert owners <= {"mosquitto", "nobody"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files over")
def test_a_folder_that_was_there_already_keeps_its_owner(tmp_path):
    write_broker(plan_in(tmp_path, persistent=True))
    assert tmp_path.owner() == "root"
    assert (tmp_path / "data").owner() in {"mosquitto", "nobody"}


def test_writing_again_replaces_what_was_there(tmp_path):
    write_broker(plan_in(tmp_path))
    plan = plan_in(tmp_path, users=(BrokerUser("agent-9", Role.AGENT, "x"),))
    write_broker(plan)
    assert "agent-1" not in plan.acl_file.read_text() + plan.password_file.read_text()


def test_the_access_list_of_an_agent_is_what_the_design_says(tmp_path):
    plan = plan_in(
        tmp_path, users=(BrokerUser("pi-7", Role.AGENT, "x"), BrokerUser("eye", Role.OPERATOR, "y"))
    )
    assert acl_text(plan) == (
        "# Generated from schemas/topics.py; changes here are overwritten.\n\n"
        "user pi-7\n"
        "topic write hunch/v1/agents/pi-7/status\n"
        "topic write hunch/v1/agents/pi-7/open/+\n"
        "topic write hunch/v1/agents/pi-7/draft/+\n"
        "topic read hunch/v1/agents/pi-7/verdict\n"
        "topic write hunch/v1/agents/pi-7/metrics\n"
        "topic read hunch/v1/agents/pi-7/prompt\n"
        "topic write hunch/v1/agents/pi-7/completion/+\n"
        "topic read hunch/v1/workers/+/status\n"
        "topic read hunch/v1/profiles/+\n\n"
        "user eye\n"
        "topic read hunch/v1/#\n"
    )


def test_the_access_list_for_emqx_grants_the_same_and_nothing_else(tmp_path):
    users = tuple(BrokerUser(f"{role.value}-1", role, "x") for role in Role)
    plan = plan_in(tmp_path, users=users)
    for_mosquitto, name = set(), ""
    for line in acl_text(plan).splitlines():
        match line.split():
            case ["user", name]:
                pass
            case ["topic", access, topics]:
                for_mosquitto.add((name, access, topics))
    *rules, last = [line for line in emqx_acl_text(plan).splitlines() if not line.startswith("%%")]
    words = {"subscribe": "read", "publish": "write", "all": "readwrite"}
    rule = re.compile(r'\{allow, \{user, "([\w-]+)"\}, (subscribe|publish|all), \["([\w/+#-]+)"\]\}\.')
    parts = [rule.fullmatch(line) for line in rules]
    assert {(part[1], words[part[2]], part[3]) for part in parts if part} == for_mosquitto
    assert len(rules) == len(for_mosquitto)
    assert last == "{deny, all}."


def test_the_configuration_leaves_no_door_open(tmp_path):
    lines = config_text(plan_in(tmp_path)).splitlines()
    assert "allow_anonymous false" in lines
    assert "per_listener_settings false" in lines
    assert "set_tcp_nodelay true" in lines
    assert "persistence false" in lines
    assert "max_packet_size 262144" in lines
    assert lines.index("listener 18830 127.0.0.1") < lines.index("use_username_as_clientid true")
    assert "persistence true" in config_text(plan_in(tmp_path, persistent=True)).splitlines()


def test_it_listens_on_one_loopback_port_and_nowhere_else(broker):
    """Mosquitto 2.0 opens port 1883 of every interface for a listener's option that comes too early."""
    opened = set()
    for link in Path(f"/proc/{broker.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            opened.add(link.readlink().name)
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{broker.pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in opened
    ]
    assert listening == [f"0100007F:{broker.port:04X}"]


def test_a_missing_mosquitto_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker_module, "_MORE_FOLDERS", ())
    with pytest.raises(ConfigurationError, match="mosquitto_passwd is not installed; install Mosquitto 2"):
        write_broker(plan_in(tmp_path))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot set up a broker in .*file"):
        write_broker(plan_in(tmp_path / "file"))


@pytest.mark.parametrize("password", ["", "with:colon", "two\nlines", "nul\0"])
def test_a_password_that_mosquitto_would_misread_is_refused(password):
    with pytest.raises(ConfigurationError, match="agent-1"):
        BrokerUser("agent-1", Role.AGENT, password)


def test_a_user_given_twice_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'agent-1' is given twice"):
        plan_in(tmp_path, users=(BrokerUser("agent-1", Role.AGENT, "x"),) * 2)


def test_passwords_are_long_random_and_shown_to_nobody():
    first, second = generate_password(), generate_password()
    assert first != second
    assert len(first) == 32
    assert first not in repr(BrokerUser("a", Role.AGENT, first))


def test_a_broker_outside_loopback_warns_that_passwords_can_be_read(tmp_path, caplog):
    write_broker(plan_in(tmp_path / "a"))
    assert not caplog.records
    write_broker(plan_in(tmp_path / "b", bind_address="0.0.0.0"))
    assert "in the clear" in caplog.text
