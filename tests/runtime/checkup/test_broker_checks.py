"""The steps towards a broker that need none: what is said of names, addresses and sizes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from runtime.checkup import broker_checks
from runtime.checkup.broker_checks import BrokerChecks
from runtime.checkup.checks import Outcome
from runtime.checkup.rights import check_packet_size, round_trip_ms
from runtime.settings import BrokerSettings
from schemas.topics import Topics
from tests.conftest import Connect


def checks(broker: str = "mqtt://127.0.0.1") -> BrokerChecks:
    return BrokerChecks(BrokerSettings(name="agent-1", broker=broker))


def inet(host: str, port: int) -> tuple[int, int, int, str, tuple[str, int]]:
    """An address as getaddrinfo gives it."""
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def shut_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_name_servers_that_say_nothing_cost_a_bounded_time(monkeypatch):
    asked, end = threading.Event(), threading.Event()

    def ask(*_where: object, **_how: object) -> list[object]:
        asked.set()
        end.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr(broker_checks, "_RESOLVE_S", 0.05)
    finding = checks("mqtt://broker.example").check_address()
    end.set()
    assert asked.is_set()
    assert (finding.outcome, finding.mend) == (Outcome.FAILED, "check the name servers")


def test_one_dead_address_of_two_is_a_warning_that_names_it(open_port, shut_port):
    made = checks()
    made._reached = [inet("127.0.0.1", shut_port), inet("127.0.0.1", open_port)]
    finding = made.check_port()
    assert finding.outcome is Outcome.WARNED
    assert "but not 127.0.0.1 (Connection refused)" in finding.found
    assert made._reached == [inet("127.0.0.1", open_port)]
    assert finding.figures["connect_ms"] == pytest.approx(made.connect_ms, abs=0.001)


@pytest.mark.parametrize(
    ("hosts", "outcome"),
    [
        (["127.0.0.1"], Outcome.PASSED),
        (["::1", "127.0.0.1"], Outcome.PASSED),
        (["192.0.2.1"], Outcome.WARNED),
        (["127.0.0.1", "fe80::1%eth0"], Outcome.WARNED),
    ],
)
def test_without_tls_nothing_may_leave_the_machine(hosts, outcome):
    made = checks()
    made._reached = [inet(host, 1883) for host in hosts]
    assert made.check_tls().outcome is outcome


@pytest.mark.parametrize(("name", "outcome"), [("no such file", Outcome.FAILED), (None, Outcome.PASSED)])
def test_a_certificate_that_is_not_there_fails_with_what_to_give(tmp_path, name, outcome):
    file = None if name is None else tmp_path / name
    made = BrokerChecks(BrokerSettings(name="agent-1", cert_file=file))
    finding = made.check_certificate()
    assert finding.outcome is outcome
    assert (finding.mend is None) == (outcome is Outcome.PASSED)


def test_an_authority_that_is_not_there_fails_with_what_to_give(tmp_path):
    made = BrokerChecks(BrokerSettings(name="agent-1", ca_file=tmp_path / "missing.pem"))
    made._reached = [inet("127.0.0.1", 1)]
    finding = made.check_tls()
    assert finding.outcome is Outcome.FAILED
    assert "missing.pem" in finding.found
    assert "ca_file" in str(finding.mend)


def test_an_opening_that_no_broker_could_take_is_no_fault_of_the_broker(connect: Connect):
    link = connect("agent-1")
    topic = Topics().open("agent-1", "worker-1")
    finding = check_packet_size(link, topic, bytes(400_000), "an opening")
    assert finding.outcome is Outcome.PASSED
    assert "will be unverified" in finding.found
    assert check_packet_size(link, topic, bytes(4000), "an opening").found.endswith("up to 4,000 bytes")


def test_what_does_not_come_back_ends_the_count():
    answers = iter(["one", "two", None, "three"])
    sent = []
    assert len(round_trip_ms(lambda: sent.append(1), lambda _timeout_s: next(answers), 4)) == 2
    assert len(sent) == 3
