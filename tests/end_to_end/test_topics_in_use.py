"""What is published is sent as the table of topics says: retained or not, and at which QoS."""

from __future__ import annotations

import pytest

from edge_agent.service import Service
from runtime.mqtt import Message, _Client
from schemas.messages import Prompt
from schemas.topics import TOPIC_RULES, TopicKind, Topics
from tests.conftest import Connect
from tests.end_to_end.stage import Stage
from tests.mqtt_helpers import DEADLINE_S, listen, wait_for

pytestmark = pytest.mark.end_to_end

TOPICS = Topics()
MAX_ANSWERS = 500
# Prompts come from other programs; that a profile is kept by the broker is tested in test_calibration.
SENT = set(TopicKind) - {TopicKind.PROMPT, TopicKind.PROFILE}


def test_each_topic_is_published_as_its_rule_says(stage: Stage, connect: Connect, monkeypatch):
    sent: set[tuple[TopicKind, int, bool]] = set()

    def note(topic: str, qos: int, retain: bool) -> None:
        if topic:  # an alias stands for one that was noted before
            sent.add((TOPICS.parse(topic).kind, qos, retain))

    publish, will_set = _Client.publish, _Client.will_set

    def noting(client, topic, payload, qos, retain, *more):
        note(topic, qos, retain)
        return publish(client, topic, payload, qos, retain, *more)

    def noting_will(client, topic, payload, qos, retain):
        note(topic, qos, retain)
        will_set(client, topic, payload, qos, retain)

    monkeypatch.setattr(_Client, "publish", noting)
    monkeypatch.setattr(_Client, "will_set", noting_will)
    operator = connect("operator-1", at=stage.broker)
    metrics = listen(operator, TOPICS.all_worker_metrics())
    with stage.worker(beat_s=0.05), stage.agent(mode="exact", max_tokens=4) as agent:
        service = Service(agent)
        assert agent.connection.wait_connected(DEADLINE_S)
        prompt = Prompt(id="q-1", text="I need a table.")
        asking = Message(TOPICS.prompt("agent-1"), prompt.to_bytes(), retained=False, received_at=0.0)
        for _ in range(MAX_ANSWERS):  # a report comes once it is a small part of the bytes
            service._serve(asking)
            if TopicKind.AGENT_METRICS in {kind for kind, _, _ in sent}:
                break
        assert metrics.get(DEADLINE_S) is not None
        wait_for(lambda: {kind for kind, _, _ in sent} == SENT)
    rules = {(rule.kind, rule.qos, rule.retained) for rule in TOPIC_RULES if rule.kind in SENT}
    assert sent == rules
