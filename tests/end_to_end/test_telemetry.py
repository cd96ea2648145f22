"""What an agent tells operators, on a real wire: all of it in the end, and never more than its share."""

from __future__ import annotations

import pytest

from edge_agent.reports import MAX_SHARE, message_bytes
from runtime.inbox import Inbox, Message
from schemas.messages import AgentMetrics, Prompt, parse_message
from schemas.topics import Topics
from tests.conftest import Connect
from tests.end_to_end.stage import Stage, read
from tests.mqtt_helpers import listen, wait_for

pytestmark = pytest.mark.end_to_end

TOPICS = Topics()
# The third report of the demo's prompts comes after 80 of them at the latest.
MAX_ANSWERS = 160
NUM_REPORTS = 3


class Operator:
    """Hears all that an agent tells operators."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._heard: list[Message] = []

    @property
    def heard(self) -> list[Message]:
        self._heard += self._inbox.drain()
        return self._heard

    @property
    def reports(self) -> list[AgentMetrics]:
        payloads = [each.payload for each in self.heard if each.topic.endswith("/metrics")]
        return [parse_message(AgentMetrics, payload) for payload in payloads]

    @property
    def num_bytes(self) -> int:
        return sum(message_bytes(each.topic, each.payload) for each in self.heard)

    @property
    def heard_farewell(self) -> bool:
        """It is as long as the will, which was told with the connection."""
        return any(b'"offline"' in each.payload for each in self.heard)


def test_reports_sum_up_all_answers_within_two_percent_of_the_bytes(
    stage: Stage, connect: Connect, prompts: tuple[Prompt, ...]
) -> None:
    topics = (TOPICS.agent_metrics("agent-1"), TOPICS.agent_status("agent-1"))
    operator = Operator(listen(connect("operator-1", at=stage.broker), *topics))
    tokens: list[int] = []
    with stage.worker(), stage.agent() as agent:
        while len(operator.reports) < NUM_REPORTS:
            assert len(tokens) < MAX_ANSWERS
            tokens.append(len(read(agent, prompts[len(tokens) % len(prompts)]).ids))
        sent, received = agent.connection.bytes_sent, agent.connection.bytes_received
        assert sent is not None
        assert received is not None
    wait_for(lambda: operator.heard_farewell)
    assert operator.num_bytes <= MAX_SHARE * (sent + received)
    num_answers = sum(report.answers for report in operator.reports)
    assert sum(report.usage.tokens for report in operator.reports) == sum(tokens[:num_answers])
    assert all(report.answers > 1 for report in operator.reports)
