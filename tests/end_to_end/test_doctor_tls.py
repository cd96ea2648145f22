"""What the doctors find in certificates: which ones end soon, have ended, are revoked, or are not trusted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_broker_worker.provision.actions import renew
from cloud_broker_worker.provision.authority import Authority
from cloud_broker_worker.provision.revocation import revoke
from cloud_broker_worker.provision.roster import Member
from schemas.topics import Role
from tests.end_to_end.examination import (
    PASSED,
    SKIPPED,
    WARNED,
    at_fault,
    examine_agent,
    examine_worker,
    mend,
)
from tests.fleet import Fleet
from tests.mqtt_helpers import DEADLINE_S

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A broker with certificates."""
    with Fleet({"agent-1": Role.AGENT, "worker-1": Role.WORKER}) as running:
        yield running


def test_every_member_of_a_broker_with_certificates_is_told_when_they_end(fleet):
    found = examine_agent(credentials=fleet.files["agent-1"], broker=f"mqtts://localhost:{fleet.port}")
    assert at_fault(found) == {"worker"}
    for name in ("tls", "certificate"):  # the fleet's are made for 30 days
        assert found[name].outcome is WARNED
        assert found[name].figures["days_left"] == 29
    assert "broker rotate-server" in mend(found["tls"])
    assert "broker rotate agent-1" in mend(found["certificate"])
    assert [found[name].outcome for name in ("login", "access", "packet_size")] == [PASSED] * 3
    there = examine_worker(credentials=fleet.files["worker-1"], broker=f"mqtts://localhost:{fleet.port}")
    assert at_fault(there) == set()
    assert there["access"].outcome is PASSED


def credentials_of(fleet: Fleet, folder: Path, until: datetime, authority: Authority | None = None) -> Path:
    """A file for agent-1 with a certificate that ends then; `authority` is whom it trusts."""
    used = fleet.folder.load_authority()
    _, made = renew(fleet.folder.load(), used, Member(name="agent-1", role=Role.AGENT), until)
    text = made.to_toml()
    if authority is not None:
        text = text.replace(used.certificate.strip(), authority.certificate.strip())
    file = folder / "agent-1.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_an_expired_certificate_is_named_with_the_command_that_renews_it(fleet, tmp_path):
    file = credentials_of(fleet, tmp_path, datetime.now(UTC) - timedelta(minutes=1))
    found = examine_agent(credentials=file, broker=f"mqtts://localhost:{fleet.port}")
    assert at_fault(found) == {"certificate"}
    assert f"{file} has expired on" in found["certificate"].found
    assert "cloud-broker-worker broker rotate agent-1" in mend(found["certificate"])
    assert found["login"].found == "because of certificate (failed)"


def test_a_revoked_certificate_is_not_let_in_and_the_line_says_what_to_look_at(fleet):
    file = fleet.add("agent-9", Role.AGENT)
    assert revoke(fleet.folder, "agent-9")
    found = examine_agent(credentials=file, broker=f"mqtts://localhost:{fleet.port}")
    assert at_fault(found) == {"login"}
    assert "neither expired nor been revoked" in mend(found["login"])


def test_a_worker_is_no_agent(fleet):
    found = examine_agent(credentials=fleet.files["worker-1"], broker=f"mqtts://localhost:{fleet.port}")
    assert "access" in at_fault(found)
    assert "does not take completions from worker-1 (not authorized)" in found["access"].found
    assert "the role of worker-1" in mend(found["access"])


def test_a_broker_of_a_foreign_authority_is_not_trusted(fleet, tmp_path):
    later = datetime.now(UTC) + timedelta(days=100)
    file = credentials_of(fleet, tmp_path, later, Authority.create("somebody else's"))
    found = examine_agent(credentials=file, broker=f"mqtts://localhost:{fleet.port}")
    assert at_fault(found) == {"tls"}
    assert "shows a certificate that is not trusted" in found["tls"].found
    assert found["tls"].mend == "check ca_file and the host name"
    assert found["certificate"].outcome is PASSED
    assert found["login"].outcome is SKIPPED


def test_a_broker_of_another_name_is_not_trusted(fleet):
    found = examine_agent(credentials=fleet.files["agent-1"], broker=f"mqtts://0.0.0.0:{fleet.port}")
    assert at_fault(found) == {"tls"}
    assert "IP address mismatch" in found["tls"].found


def test_a_brokers_certificate_that_has_expired_is_the_brokers_to_renew(tmp_path):
    authority = Authority.create("tests")
    issued = authority.issue_server(["localhost"], datetime.now(UTC) - timedelta(minutes=1))
    (tmp_path / "server.pem").write_text(issued.certificate + issued.key)
    (tmp_path / "ca.pem").write_text(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")

    def refuse_twice() -> None:
        server.accept()[0].close()  # the port's check
        with server.accept()[0] as plain, contextlib.suppress(OSError):
            context.wrap_socket(plain, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse_twice)
        thread.start()
        broker = f"mqtts://localhost:{server.getsockname()[1]}"
        found = examine_agent(name="agent-1", broker=broker, ca_file=tmp_path / "ca.pem")
        thread.join(DEADLINE_S)
    assert at_fault(found) == {"tls"}
    assert "certificate has expired" in found["tls"].found
    assert "broker rotate-server" in mend(found["tls"])


def test_a_key_of_another_certificate_does_not_fit(fleet):
    other = fleet.folder.mosquitto / "server.key"
    found = examine_agent(
        credentials=fleet.files["agent-1"], key_file=other, broker=f"mqtts://localhost:{fleet.port}"
    )
    assert {"certificate"} <= at_fault(found)
    assert str(other) in found["certificate"].found
