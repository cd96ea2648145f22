"""What a real Mosquitto says to a message that it takes, and to one that it must not take."""

from __future__ import annotations

import pytest

from benchmarks.tcp_proxy import TcpProxy
from schemas.errors import Disconnected, LinkError, PayloadTooLarge
from schemas.topics import Topics
from tests.conftest import Connect
from tests.mqtt_helpers import DEADLINE_S, listen, payloads

TOPICS = Topics()
OWN = TOPICS.agent_metrics("agent-1")
ANOTHERS = TOPICS.agent_metrics("agent-2")


def test_the_broker_says_whether_it_takes_a_message(connect: Connect) -> None:
    seen = listen(connect("operator-1"), TOPICS.all_agent_metrics())
    agent = connect("agent-1")
    assert agent.publish_and_ask(OWN, b"one", DEADLINE_S) is None
    assert agent.publish_and_ask(ANOTHERS, b"forged", DEADLINE_S) == "not authorized"
    assert agent.publish_and_ask(OWN, b"two", DEADLINE_S) is None
    assert payloads(seen, 2) == [b"one", b"two"]


def test_that_nobody_listens_is_no_refusal(connect: Connect) -> None:
    agent = connect("agent-1")
    assert agent.publish_and_ask(TOPICS.completion("agent-1", "nobodys"), b"", DEADLINE_S) is None


def test_other_messages_under_way_are_not_taken_for_the_answer(connect: Connect) -> None:
    agent = connect("agent-1")
    for _ in range(20):
        agent.publish(OWN, b"qos 0")
        agent.publish(TOPICS.open("agent-1", "worker-1"), b"qos 1", qos=1)
        assert agent.publish_and_ask(ANOTHERS, b"", DEADLINE_S) == "not authorized"


def test_a_broker_that_does_not_answer_in_time_is_an_error(broker, connect: Connect) -> None:
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", port=proxy.port)
        proxy.stall()
        with pytest.raises(
            LinkError, match="did not acknowledge a message on hunch/v1/agents/agent-1/metrics"
        ):
            agent.publish_and_ask(OWN, b"", 0.1)


def test_a_connection_that_is_lost_meanwhile_is_an_error_at_once(private_broker, connect: Connect) -> None:
    broker = private_broker()
    with TcpProxy(broker.port) as proxy:
        agent = connect("agent-1", at=broker, port=proxy.port)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(Disconnected):
            agent.publish_and_ask(OWN, b"", DEADLINE_S)


def test_a_size_can_be_asked_about_without_sending(connect: Connect) -> None:
    agent = connect("agent-1")
    agent.check_size(OWN, bytes(200_000))
    with pytest.raises(PayloadTooLarge):
        agent.check_size(OWN, bytes(300_000))
