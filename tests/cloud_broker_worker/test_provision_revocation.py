"""Shutting a member out of a running broker: its next connection, the one it has, and what it left there."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from cloud_broker_worker.provision import actions, live
from cloud_broker_worker.provision.revocation import revoke
from cloud_broker_worker.provision.roster import Proof
from runtime.mqtt import Connection, Publication
from schemas.errors import ConfigurationError, LinkError
from schemas.topics import Role, Topics
from tests.fleet import DAYS, Fleet, is_let_in
from tests.mqtt_helpers import DEADLINE_S, listen, payloads, quick, wait_for, wait_lost

TOPICS = Topics()
MEMBERS = {"agent-1": Role.AGENT, "agent-2": Role.AGENT, "worker-1": Role.WORKER, "eye": Role.OPERATOR}
MQTT_CONNECT = bytes.fromhex("100d 0004 4d515454 05 02 000a 00 0000")
CONNACK = 0x20


@pytest.fixture
def fleet(request) -> Iterator[Fleet]:
    with Fleet(MEMBERS, getattr(request, "param", Proof.CERTIFICATES)) as running:
        yield running


each_fleet = pytest.mark.parametrize("fleet", list(Proof), indirect=True, ids=lambda proof: proof.value)


@contextlib.contextmanager
def joined(fleet: Fleet, name: str, **options) -> Iterator[Connection]:
    connection = Connection(fleet.address(name), backoff=quick(), **options)
    connection.start()
    try:
        assert connection.wait_connected(DEADLINE_S), connection.last_error
        yield connection
    finally:
        connection.stop()


@each_fleet
def test_a_revoked_member_is_thrown_out_and_does_not_come_back_and_nobody_else_notices(fleet):
    with joined(fleet, "agent-1") as stolen, joined(fleet, "agent-2") as other, joined(fleet, "eye") as eye:
        seen = listen(eye, TOPICS.all_agent_metrics())
        assert revoke(fleet.folder, "agent-1")
        wait_lost(stolen)
        with contextlib.suppress(LinkError):
            stolen.publish(TOPICS.agent_metrics("agent-1"), b"from the thief")
        other.publish(TOPICS.agent_metrics("agent-2"), b"still here")
        assert payloads(seen, 1) == [b"still here"]
        assert eye.connected
        assert not is_let_in(fleet.address("agent-1"))
        assert not stolen.connected


@each_fleet
def test_what_a_revoked_member_retained_is_emptied(fleet):
    status = TOPICS.agent_status("agent-1")
    birth, will = Publication(status, b"online"), Publication(status, b"offline")
    with joined(fleet, "agent-1", birth=birth, will=will), joined(fleet, "worker-1") as worker:
        inbox = listen(worker, TOPICS.all_agent_status())
        assert payloads(inbox, 1) == [b"online"]
        assert revoke(fleet.folder, "agent-1")
        while payloads(inbox, 1) != [b""]:
            pass  # the will comes first where a connection is taken over, none where its password is gone
    with joined(fleet, "worker-1") as worker:
        inbox = listen(worker, TOPICS.all_agent_status())
        with joined(fleet, "agent-2") as other:
            other.publish(TOPICS.agent_status("agent-2"), b"marker", qos=1)
            assert payloads(inbox, 1) == [b"marker"]


@each_fleet
def test_a_member_revoked_while_the_broker_is_down_is_refused_when_it_starts(fleet):
    fleet.stop()
    assert not revoke(fleet.folder, "agent-1")
    fleet.start()
    assert not is_let_in(fleet.address("agent-1"))
    assert is_let_in(fleet.address("agent-2"))


@each_fleet
def test_a_name_can_be_given_again_and_its_old_credentials_stay_worthless(fleet):
    revoke(fleet.folder, "agent-1")
    new = fleet.add("agent-1", Role.AGENT)
    assert is_let_in(fleet.address("agent-1", new))
    assert not is_let_in(fleet.address("agent-1"))


def test_several_members_revoked_in_one_second_are_all_refused(fleet):
    """A revocation list counts in seconds, and Mosquitto keeps the older ones beside the newest."""
    for name in ("agent-1", "agent-2", "worker-1"):
        revoke(fleet.folder, name)
    assert not any(is_let_in(fleet.address(name)) for name in ("agent-1", "agent-2", "worker-1"))
    assert is_let_in(fleet.address("eye"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_session_kept_from_before_does_not_get_a_revoked_member_back_in(fleet, version):
    context = ssl.create_default_context(cafile=fleet.files["agent-1"])
    context.load_cert_chain(fleet.files["agent-1"])
    context.maximum_version = version

    def connack(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None, bool | None]:
        plain = socket.create_connection((fleet.host, fleet.port), timeout=DEADLINE_S)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as link:
            link.sendall(MQTT_CONNECT)
            return link.recv(1), link.session, link.session_reused

    first, kept, _ = connack(None)
    assert first == bytes([CONNACK])
    assert connack(kept)[2], "a kept session must be usable at all for this test to show anything"
    revoke(fleet.folder, "agent-1")
    with pytest.raises(ssl.SSLError, match="revoked"):
        connack(kept)


def test_a_rotated_member_changes_over_when_it_likes(fleet):
    with joined(fleet, "agent-1") as working:
        new = fleet.carried(actions.rotate(fleet.folder, "agent-1", DAYS, at_once=False))
        assert working.connected
    assert is_let_in(fleet.address("agent-1"))
    assert is_let_in(fleet.address("agent-1", new))


@each_fleet
def test_rotating_at_once_ends_what_the_old_credentials_opened(fleet):
    with joined(fleet, "agent-1") as stolen:
        new = fleet.carried(actions.rotate(fleet.folder, "agent-1", DAYS, at_once=True))
        wait_lost(stolen)
        assert not is_let_in(fleet.address("agent-1"))
    assert is_let_in(fleet.address("agent-1", new))


def test_revoking_a_rotated_member_revokes_all_its_certificates(fleet):
    new = fleet.carried(actions.rotate(fleet.folder, "agent-1", DAYS, at_once=False))
    revoke(fleet.folder, "agent-1")
    assert not is_let_in(fleet.address("agent-1"))
    assert not is_let_in(fleet.address("agent-1", new))


def test_the_brokers_own_certificate_is_changed_while_it_runs(fleet):
    def shown() -> int:
        context = ssl.create_default_context(cafile=fleet.files["agent-1"])
        context.load_cert_chain(fleet.files["agent-1"])
        plain = socket.create_connection((fleet.host, fleet.port), timeout=DEADLINE_S)
        with context.wrap_socket(plain, server_hostname="localhost") as link:
            return int(str((link.getpeercert() or {})["serialNumber"]), 16)

    before = fleet.folder.load().server.serial
    assert shown() == before
    with joined(fleet, "agent-1") as member:
        actions.rotate_server(fleet.folder, DAYS)
        wait_for(lambda: shown() == fleet.folder.load().server.serial != before)
        assert member.connected
    assert is_let_in(fleet.address("agent-1"))


def test_an_operator_hears_when_the_broker_cannot_be_made_to_listen(fleet, monkeypatch):
    def fails(*_arguments, **_named):
        raise LinkError("no way there")

    monkeypatch.setattr(live, "take_over", fails)
    with joined(fleet, "agent-1") as stolen, joined(fleet, "eye") as eye:
        seen = listen(eye, TOPICS.all_agent_metrics())
        with pytest.raises(
            LinkError, match="'agent-1' is revoked, but its connection may still be up: no way"
        ):
            revoke(fleet.folder, "agent-1")
        # Even so it can say nothing any more, once the broker has read the last change.
        stolen.publish(TOPICS.agent_metrics("agent-1"), b"from the thief", qos=1)
        with joined(fleet, "agent-2") as other:
            other.publish(TOPICS.agent_metrics("agent-2"), b"marker")
            assert payloads(seen, 1) == [b"marker"]
    assert not is_let_in(fleet.address("agent-1"))


def test_a_second_revocation_and_an_unknown_name_are_told_apart(fleet):
    revoke(fleet.folder, "agent-1")
    with pytest.raises(ConfigurationError, match="'agent-1' is revoked already"):
        revoke(fleet.folder, "agent-1")
    with pytest.raises(ConfigurationError, match="there is no 'nobody' at this broker"):
        revoke(fleet.folder, "nobody")


def test_the_process_of_another_program_is_never_signalled(fleet):
    plan = fleet.folder.plan(fleet.folder.load())
    assert live.running_process(plan) is not None
    plan.pid_file.write_text("1\n")
    assert live.running_process(plan) is None
    assert not live.reload(plan)
