"""The connection against a hostile broker: whatever comes in, the network thread lives on."""

from __future__ import annotations

import socket

import pytest

from runtime.mqtt import BrokerAddress, Connection
from tests.mqtt_helpers import DEADLINE_S, quick, wait_for

_CONNACK = bytes.fromhex("2003000000")
_HOSTILE = {
    "a_topic_that_is_not_utf8": bytes.fromhex("3006 0002 fffe 00 41"),
    "a_topic_nobody_asked_for": bytes.fromhex("3005 0001 7a 00 41"),
    "an_empty_topic_without_an_alias": bytes.fromhex("3004 0000 00 41"),
    "a_topic_longer_than_its_packet": bytes.fromhex("3004 ffff 00 41"),
    "properties_longer_than_their_packet": bytes.fromhex("3006 0001 7a ff7f 41"),
    "a_packet_without_content": bytes.fromhex("3000"),
    "a_length_that_never_ends": bytes.fromhex("30ffffffffff"),
    "a_packet_type_that_does_not_exist": bytes.fromhex("0000"),
    "an_acknowledgement_of_nothing": bytes.fromhex("40021234"),
    "a_subscription_answer_to_nothing": bytes.fromhex("9004 1234 00 87"),
    "a_disconnect_with_an_unknown_reason": bytes.fromhex("e001ff"),
    "a_second_connack": _CONNACK,
    "noise": bytes(range(255, 0, -1)),
}


@pytest.mark.parametrize("packet", _HOSTILE.values(), ids=_HOSTILE.keys())
def test_whatever_a_broker_sends_the_network_thread_lives_on(packet):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)
        connection = Connection(BrokerAddress("127.0.0.1", server.getsockname()[1]), backoff=quick())
        connection.start()
        for _ in range(2):
            link, _address = server.accept()
            with link:
                link.settimeout(DEADLINE_S)
                link.recv(4096)
                link.sendall(_CONNACK + packet)
                wait_for(lambda: connection.last_error or connection.connected)
        # It has come back once already, and does so again, to a broker that behaves.
        link, _address = server.accept()
        with link:
            link.settimeout(DEADLINE_S)
            link.recv(4096)
            link.sendall(_CONNACK)
            assert connection.wait_connected(DEADLINE_S)
            connection.stop()
