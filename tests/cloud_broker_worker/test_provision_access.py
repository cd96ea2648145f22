"""Who gets into a broker with certificates: members, by their own credentials, and nobody else."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_broker_worker.provision.actions import add, renew
from cloud_broker_worker.provision.authority import Authority
from cloud_broker_worker.provision.roster import Member
from edge_agent.settings import AgentSettings
from runtime.credentials import Credentials
from runtime.mqtt import BrokerAddress, Connection
from runtime.settings import load
from schemas.topics import Role, Topics
from tests.fleet import Fleet, is_let_in
from tests.mqtt_helpers import DEADLINE_S, listen, payloads, quick

TOPICS = Topics()
MEMBERS = {
    "agent-1": Role.AGENT,
    "worker-1": Role.WORKER,
    "client-1": Role.CLIENT,
    "operator-1": Role.OPERATOR,
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(MEMBERS) as running:
        yield running


def credentials_of(
    fleet: Fleet, name: str, *, authority: Authority | None = None, until: datetime | None = None
) -> Path:
    """A file for `name` made behind the roster's back."""
    until = until or datetime.now(UTC) + timedelta(days=1)
    used = authority or fleet.folder.load_authority()
    _, credentials = renew(fleet.folder.load(), used, Member(name=name, role=Role.AGENT), until)
    # The client must trust the broker, so that a refusal is the broker's.
    genuine = fleet.folder.load_authority().certificate
    fields = {**vars(credentials), "authority": genuine}
    file = fleet.top / f"made-{len(list(fleet.top.iterdir()))}.toml"
    file.write_text(Credentials(**fields).to_toml())
    return file


def test_every_member_is_let_in(fleet):
    assert all(is_let_in(fleet.address(name)) for name in MEMBERS)


def test_an_expired_certificate_is_refused(fleet):
    expired = datetime.now(UTC) - timedelta(minutes=1)
    assert not is_let_in(fleet.address("agent-1", credentials_of(fleet, "agent-1", until=expired)))
    assert is_let_in(fleet.address("agent-1", credentials_of(fleet, "agent-1")))


def test_a_certificate_of_a_foreign_authority_is_refused_even_one_of_the_same_name(fleet):
    foreign = Authority.create("hunch authority of localhost")
    assert not is_let_in(fleet.address("agent-1", credentials_of(fleet, "agent-1", authority=foreign)))


def test_who_shows_no_certificate_is_refused(fleet):
    file = fleet.files["agent-1"]
    assert not is_let_in(BrokerAddress(fleet.host, fleet.port, "agent-1", "x", "agent-1", ca_file=file))


def test_who_speaks_without_tls_is_refused(fleet):
    assert not is_let_in(BrokerAddress(fleet.host, fleet.port, "agent-1", None, "agent-1"))


def test_the_brokers_own_certificate_lets_nobody_in(fleet):
    here, file = fleet.folder.mosquitto, fleet.files["agent-1"]
    address = BrokerAddress(
        fleet.host,
        fleet.port,
        client_id="agent-1",
        ca_file=file,
        cert_file=here / "server.pem",
        key_file=here / "server.key",
    )
    assert not is_let_in(address)


def test_a_members_certificate_cannot_pose_as_the_broker(fleet):
    file = fleet.files["agent-1"]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    client = ssl.create_default_context(cafile=fleet.files["worker-1"])
    client.check_hostname = False  # the certificate names no host at all; its purpose alone must do
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(theirs, ours)
    other = server.wrap_bio(ours, theirs, server_side=True)

    def shake_hands() -> None:
        for side in (one, other, one):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()

    with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)purpose"):
        shake_hands()


def test_a_name_that_the_roster_does_not_hold_gets_nothing(fleet):
    """Its certificate is genuine, say from before a restored backup: it may connect, and that is all."""
    stranger = Connection(fleet.address("stranger", credentials_of(fleet, "stranger")), backoff=quick())
    stranger.start()
    inbox = listen(stranger, "#", TOPICS.everything(), TOPICS.verdict("stranger"), TOPICS.prompt("stranger"))
    worker, watcher = (Connection(fleet.address(name)) for name in ("worker-1", "operator-1"))
    for connection in (worker, watcher):
        connection.start()
        assert connection.wait_connected(DEADLINE_S)
    seen = listen(watcher, TOPICS.everything())
    stranger.publish(TOPICS.agent_metrics("stranger"), b"forged", qos=1)
    worker.publish(TOPICS.verdict("stranger"), b"verdict", qos=1)
    assert payloads(seen, 1) == [b"verdict"]  # and not the forged one, which was sent before
    assert inbox.get(0.0) is None
    for connection in (stranger, worker, watcher):
        connection.stop()


def test_the_common_name_counts_and_not_the_user_name_that_a_client_gives(fleet):
    address = fleet.address("agent-1")
    fields = {**vars(address), "username": "operator-1", "client_id": "operator-1"}
    liar, worker = Connection(BrokerAddress(**fields)), Connection(fleet.address("worker-1"))
    liar.start()
    inbox = listen(liar, TOPICS.all_worker_metrics(), TOPICS.verdict("agent-1"))
    worker.start()
    assert worker.wait_connected(DEADLINE_S)
    worker.publish(TOPICS.worker_metrics("worker-1"), b"for operators")
    worker.publish(TOPICS.verdict("agent-1"), b"for the agent")
    assert payloads(inbox, 1) == [b"for the agent"]
    liar.stop()
    worker.stop()


def test_one_setting_is_enough_for_an_agent(fleet, tmp_path):
    argv = ["--credentials", str(fleet.files["agent-1"]), "--model", "m.gguf"]
    settings = load(AgentSettings, argv, prog="edge-agent run", default_file=tmp_path / "none")
    address = settings.broker_address()
    assert (settings.name, address.host, address.port) == ("agent-1", "localhost", fleet.port)
    assert is_let_in(address)


def test_the_same_file_serves_the_programs_of_mosquitto(fleet):
    watcher = Connection(fleet.address("operator-1"))
    watcher.start()
    inbox = listen(watcher, TOPICS.prompt("agent-1"))
    file = str(fleet.files["client-1"])
    files = ["--cafile", file, "--cert", file, "--key", file]
    where = ["-h", "localhost", "-p", str(fleet.port), "-t", TOPICS.prompt("agent-1"), "-m", "hello"]
    subprocess.run(["mosquitto_pub", *where, *files], check=True, timeout=DEADLINE_S)
    assert payloads(inbox, 1) == [b"hello"]
    watcher.stop()


def test_a_member_added_while_the_broker_runs_is_let_in_and_heard(fleet):
    watcher = Connection(fleet.address("operator-1"))
    watcher.start()
    inbox = listen(watcher, TOPICS.agent_metrics("late"))
    late = Connection(fleet.address("late", fleet.carried(add(fleet.folder, "late", Role.AGENT, 1))))
    late.start()
    assert late.wait_connected(DEADLINE_S)
    late.publish(TOPICS.agent_metrics("late"), b"here")
    assert payloads(inbox, 1) == [b"here"]
    late.stop()
    watcher.stop()


def test_an_older_tls_than_1_2_is_refused(fleet):
    context = ssl.create_default_context(cafile=fleet.files["agent-1"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((fleet.host, fleet.port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")
