"""A name at a broker is claimed by one process of a machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runtime.link import BrokerAddress
from runtime.one_at_a_time import claim_name, is_claimed
from schemas.errors import ConfigurationError
from tests.mqtt_helpers import DEADLINE_S


def address(name: str = "claimed", port: int = 1883) -> BrokerAddress:
    return BrokerAddress("one-at-a-time.invalid", port, client_id=name)


def test_a_second_claim_is_one_clear_line():
    with (
        claim_name(address()),
        pytest.raises(ConfigurationError, match=r"claimed already runs .*; stop it first"),
    ):
        claim_name(address()).__enter__()


def test_a_look_takes_nothing():
    assert not is_claimed(address())
    with claim_name(address()):
        assert all(is_claimed(address()) for _ in range(100))
    assert not is_claimed(address())
    with claim_name(address()):
        pass


def test_other_names_and_other_brokers_are_free():
    with claim_name(address()), claim_name(address("other")), claim_name(address(port=1884)):
        assert not is_claimed(address("third"))


def test_a_name_of_any_length_can_be_claimed():
    with claim_name(address("n" * 64)):
        assert is_claimed(address("n" * 64))


def test_a_claim_ends_with_its_process_however_that_ends():
    program = (
        "from runtime.link import BrokerAddress\n"
        "from runtime.one_at_a_time import claim_name\n"
        "with claim_name(BrokerAddress('one-at-a-time.invalid', 1883, client_id='claimed')):\n"
        "    print('held', flush=True)\n"
        "    input()\n"
    )
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_claimed(address())
        process.kill()
        process.wait(DEADLINE_S)
    assert not is_claimed(address())
