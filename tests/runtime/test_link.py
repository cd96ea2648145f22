"""What a user is told: settings that cannot work, and one clear line for each way a connection fails."""

from __future__ import annotations

import logging
import random
import socket
import ssl

import pytest

from runtime.backoff import Backoff
from runtime.link import BrokerAddress, describe_failure, tls_context
from runtime.link_health import STABLE_S, LinkHealth
from schemas.errors import ConfigurationError

ADDRESS = BrokerAddress("broker.lab", 1883, "pi-7", "secret")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def health(clock: Clock | None = None) -> LinkHealth:
    return LinkHealth(ADDRESS, Backoff(0.2, 30.0, Highest()), Clock() if clock is None else clock)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"host": ""}, "host is empty"),
        ({"host": "x" * 64 + ".lab"}, "not a host name"),
        ({"port": 0}, "port 0"),
        ({"port": 65536}, "port 65536"),
        ({"keepalive_s": 0}, "keepalive_s 0"),
        ({"username": None}, "without a username"),
        ({"key_file": "k.pem"}, "cert_file"),
    ],
)
def test_settings_that_could_never_work_are_refused(settings, named):
    good = {"host": "broker.lab", "port": 1883, "username": "pi-7", "password": "secret"}
    with pytest.raises(ConfigurationError, match=named):
        BrokerAddress(**{**good, **settings})


def test_a_password_is_in_neither_form_of_an_address():
    assert "secret" not in repr(ADDRESS)
    assert "secret" not in str(ADDRESS)


def test_an_ipv6_address_is_shown_in_brackets():
    assert str(BrokerAddress("::1", 1883)) == "[::1]:1883"


def test_a_missing_certificate_file_is_named(tmp_path):
    missing = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        tls_context(BrokerAddress("broker.lab", 8883, ca_file=missing))
    with pytest.raises(ConfigurationError, match=r"own\.pem"):
        tls_context(BrokerAddress("broker.lab", 8883, tls=True, cert_file=tmp_path / "own.pem"))


def test_a_refusal_names_both_sides_and_the_mend():
    link = health()
    link.refused(0x87, "Not authorized")
    link.ended(None)
    assert link.last_error == (
        "broker broker.lab:1883 refused user 'pi-7': not authorized; check username and password"
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ConnectionRefusedError(111, "Connection refused"),
            "nothing listens at broker broker.lab:1883; check host, port and that the broker runs",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            (
                "broker host 'broker.lab' is unknown: Name or service not known; "
                "check the host name and the network"
            ),
        ),
        (
            TimeoutError("timed out"),
            "broker broker.lab:1883 did not answer in time; check host, port and firewall",
        ),
        (OSError(101, "Network is unreachable"), "cannot reach broker broker.lab:1883"),
        (ssl.SSLError(1, "wrong version number"), "TLS with broker broker.lab:1883 failed"),
    ],
)
def test_a_connection_that_cannot_be_opened_is_explained(error, line):
    assert describe_failure(ADDRESS, error).startswith(line)


def test_a_broker_that_hangs_up_before_answering_makes_us_ask_about_tls():
    link = health()
    link.ended(None)
    assert link.last_error is not None
    assert "closed the connection of user 'pi-7' before answering" in link.last_error
    assert "without TLS" in link.last_error


def test_a_trouble_is_logged_once_until_the_link_has_been_stable(caplog):
    clock = Clock()
    link = health(clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            link.failed(ConnectionRefusedError())
        assert len(caplog.records) == 1
        link.accepted()
        clock.now += STABLE_S
        link.ended(None)
        link.failed(ConnectionRefusedError())
    assert [r.getMessage().split(";")[0] for r in caplog.records] == [
        "nothing listens at broker broker.lab:1883",
        "lost the connection to broker broker.lab:1883",
        "nothing listens at broker broker.lab:1883",
    ]


def test_the_delay_starts_again_only_after_a_stable_connection():
    clock = Clock()
    link = health(clock)
    assert [link.failed(OSError()) for _ in range(3)] == [0.2, 0.4, 0.8]
    link.accepted()
    clock.now += STABLE_S / 2
    assert link.ended((0x8E, "Session taken over")) == 1.6
    link.accepted()
    clock.now += STABLE_S
    assert link.ended(None) == 0.2


def test_connections_that_keep_ending_within_seconds_point_at_a_second_process():
    clock = Clock()
    link = health(clock)
    for _ in range(3):
        link.accepted()
        clock.now += STABLE_S / 2
        link.ended(None)
    assert link.last_error is not None
    assert "check that no other process connects under this name" in link.last_error
    link.accepted()
    clock.now += STABLE_S
    link.ended(None)
    assert link.last_error == "lost the connection to broker broker.lab:1883"


def test_there_is_no_error_while_connected():
    link = health()
    link.failed(OSError())
    link.accepted()
    assert link.last_error is None
