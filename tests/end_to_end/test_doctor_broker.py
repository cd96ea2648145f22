"""What the doctors find on the way to a broker: nobody there, not let in, no access list, no room."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.examination import (
    FAILED,
    PASSED,
    WARNED,
    at_fault,
    examine_agent,
    examine_worker,
    mend,
)
from tests.end_to_end.stage import running
from tests.mqtt_helpers import DEADLINE_S, quick, wait_for

pytestmark = pytest.mark.end_to_end


def test_a_port_where_nothing_listens(lasting_stage):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        found = examine_agent(name="agent-1", broker=f"mqtt://127.0.0.1:{port}")
    assert at_fault(found) == {"port"}
    assert f"nothing listens at broker 127.0.0.1:{port}" in found["port"].found
    assert found["port"].mend == "check host, port and that the broker runs"


def test_a_host_that_nobody_knows(lasting_stage):
    found = examine_agent(name="agent-1", broker="mqtt://no-such-host.invalid")
    assert at_fault(found) == {"address"}
    assert "no-such-host.invalid" in found["address"].found


def test_a_wrong_password_is_refused_in_words(lasting_stage):
    found = examine_agent(**(lasting_stage.login("agent-1") | {"password": "guessed"}))
    assert at_fault(found) == {"login"}
    assert "refused user 'agent-1': not authorized" in found["login"].found
    assert found["login"].mend == "check username and password"


def test_a_name_that_is_used_on_another_machine_too_is_found(stage, connect):
    other = connect("agent-1", at=stage.broker, backoff=quick())  # without a claim on this machine
    found = examine_agent(**stage.login("agent-1"))
    assert at_fault(found) == {"login"}
    assert "somebody else connects as agent-1" in found["login"].found
    assert other.wait_connected(DEADLINE_S)


def test_a_broker_that_says_nothing_costs_seconds():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started_s = time.monotonic()
        found = examine_agent(name="agent-1", broker=f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started_s < 15
    assert at_fault(found) == {"login"}


def test_another_root_than_the_brokers_lets_nothing_through(lasting_stage):
    found = examine_agent(**lasting_stage.login("agent-1"), topic_root="other/v1")
    assert {"access", "worker"} == at_fault(found)
    assert "not authorized" in found["access"].found
    assert "topic_root (other/v1)" in mend(found["access"])


@contextlib.contextmanager
def anybodys_broker(folder: Path, *options: str) -> Iterator[str]:
    """The address of a Mosquitto that lets anybody do anything."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file = folder / "mosquitto.conf"
    file.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *options, ""]))
    with running(folder / "mosquitto.log", ["mosquitto", "-c", str(file)]):
        wait_for(lambda: _listens(port))
        yield f"mqtt://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize("examine", [examine_agent, examine_worker])
def test_a_broker_without_an_access_list_fails(tmp_path, examine):
    with anybodys_broker(tmp_path) as broker:
        found = examine(name="somebody", broker=broker)
    assert found["login"].outcome is PASSED
    assert found["access"].outcome is FAILED
    assert "the broker lets somebody write in a" in found["access"].found
    assert "read what is not for it" in found["access"].found
    assert "broker init" in mend(found["access"])


@pytest.mark.parametrize("examine", [examine_agent, examine_worker])
def test_a_broker_that_takes_less_than_an_opening_needs_is_a_warning(tmp_path, examine):
    with anybodys_broker(tmp_path, "max_packet_size 1000") as broker:
        found = examine(name="somebody", broker=broker)
    assert found["packet_size"].outcome is WARNED
    assert found["packet_size"].figures["needed_bytes"] > 1000 > found["packet_size"].figures["allowed_bytes"]
    assert "raise max_packet_size" in mend(found["packet_size"])
