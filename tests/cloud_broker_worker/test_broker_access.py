"""Who may do what at a real Mosquitto: exactly what the table of topics says, and nothing by a detour."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_broker_worker.private_broker import PrivateBroker
from cloud_broker_worker.provision.roster import Proof
from runtime.mqtt import BrokerAddress, Connection, Inbox, Message, Publication
from schemas.topics import TOPIC_RULES, Role, TopicKind, Topics
from tests.conftest import USERS
from tests.fleet import Fleet
from tests.mqtt_helpers import DEADLINE_S, listen, payloads

TOPICS = Topics()
RULES = {rule.kind: rule for rule in TOPIC_RULES}
WATCHER = "operator-2"  # sees what gets through, beside the users under test
SUBJECTS = {name: role for name, role in USERS.items() if name != WATCHER}
# Every concrete topic: each kind, with each agent and worker there is, and with one that is a stranger.
CONCRETE = {
    f"{TOPICS.root}/{rule.pattern.format(agent=agent, worker=worker, id='9')}": rule.kind
    for rule in TOPIC_RULES
    for agent in ("agent-1", "agent-2", "stranger")
    for worker in ("worker-1", "worker-2", "stranger")
}
NOBODYS = f"{TOPICS.root}/agents/agent-1/no-such-kind"


def expected(user: str, topic: str, roles: tuple[Role, ...]) -> bool:
    """Whether the table lets a user have a topic: by role, and where the topic names that role, by name."""
    parsed = TOPICS.parse(topic)
    own = {Role.AGENT: parsed.agent, Role.WORKER: parsed.worker}.get(SUBJECTS[user])
    return SUBJECTS[user] in roles and own in (None, user)


def a_broker(proof: Proof | None) -> PrivateBroker | Fleet:
    """The demo's broker, or one that an operator sets up; each must let the same through."""
    users = {**SUBJECTS, WATCHER: Role.OPERATOR}
    return PrivateBroker(users) if proof is None else Fleet(users, proof)


KINDS = {"demo": None, **{proof.value: proof for proof in Proof}}


@pytest.fixture(scope="module", params=KINDS)
def guarded(request) -> Iterator[PrivateBroker | Fleet]:
    with a_broker(KINDS[request.param]) as running:
        yield running


def address_at(broker: PrivateBroker | Fleet, name: str, client_id: str | None = None) -> BrokerAddress:
    if isinstance(broker, Fleet):
        return broker.address(name, client_id=client_id)
    return BrokerAddress(broker.host, broker.port, name, broker.credentials[name], client_id or name)


def join(broker: PrivateBroker | Fleet, name: str, *, client_id: str | None = None) -> Connection:
    connection = Connection(address_at(broker, name, client_id))
    connection.start()
    assert connection.wait_connected(DEADLINE_S), connection.last_error
    return connection


def until(inbox: Inbox, last_payload: bytes) -> list[Message]:
    """All messages up to the one that carries `last_payload`, without it."""
    received: list[Message] = []
    while True:
        message = inbox.get(DEADLINE_S)
        assert message is not None, "the last message never came"
        if message.payload == last_payload:
            return received
        received.append(message)


@pytest.fixture(scope="module")
def written(guarded) -> dict[str, set[str]]:
    """By user, the topics on which something got through when the user tried them all."""
    watcher, herald = join(guarded, WATCHER), join(guarded, "worker-1")
    inbox = watcher.subscribe([(TOPICS.everything(), 0)], max_queued=10_000)
    assert watcher.wait_connected(DEADLINE_S)
    result = {}
    for name in SUBJECTS:
        writer = herald if name == "worker-1" else join(guarded, name)
        for topic in [*CONCRETE, NOBODYS]:
            writer.publish(topic, b"attempt", qos=0)
        if writer is not herald:
            # The broker has taken everything of a connection once it acknowledges the last of it.
            writer.stop(Publication(TOPICS.agent_status("agent-1"), b"attempt", qos=1, retain=False))
        herald.publish(TOPICS.worker_metrics("worker-1"), name.encode())
        result[name] = {message.topic for message in until(inbox, name.encode())}
    watcher.stop()
    herald.stop()
    return result


@pytest.fixture(scope="module")
def read(guarded) -> Iterator[dict[str, set[str]]]:
    """By user, the topics from which something came in while it was subscribed to all that it could name."""
    filters = [
        "#",
        "+/#",
        TOPICS.everything(),
        f"{TOPICS.root}/+/+/+",
        f"{TOPICS.root}/agents/+/#",
        *CONCRETE,
    ]
    connections = {name: join(guarded, name) for name in [*SUBJECTS, WATCHER]}
    watched = connections[WATCHER].subscribe([(TOPICS.everything(), 0)], max_queued=10_000)
    inboxes = {
        name: connections[name].subscribe([(f, 0) for f in filters], max_queued=10_000) for name in SUBJECTS
    }
    for connection in connections.values():
        assert connection.wait_connected(DEADLINE_S)
    num_sent = 0
    for topic, kind in CONCRETE.items():
        for name in SUBJECTS:
            if expected(name, topic, RULES[kind].writers):
                connections[name].publish(topic, b"message")
                num_sent += 1
    # Once the watcher has seen all of them, the broker has handed each to all who may have it.
    for _ in range(num_sent):
        assert watched.get(DEADLINE_S) is not None
    connections["worker-1"].publish(TOPICS.worker_status("worker-1"), b"last")
    connections["agent-1"].publish(TOPICS.agent_status("agent-1"), b"last")
    yield {name: {message.topic for message in until(inbox, b"last")} for name, inbox in inboxes.items()}
    for connection in connections.values():
        connection.stop()


@pytest.mark.parametrize("kind", list(TopicKind), ids=lambda kind: kind.value)
@pytest.mark.parametrize("user", SUBJECTS)
def test_a_user_writes_exactly_the_topics_that_the_table_gives_it(user, kind, written):
    of_this_kind = {topic for topic, its_kind in CONCRETE.items() if its_kind is kind}
    allowed = {topic for topic in of_this_kind if expected(user, topic, RULES[kind].writers)}
    assert written[user] & of_this_kind == allowed


@pytest.mark.parametrize("kind", list(TopicKind), ids=lambda kind: kind.value)
@pytest.mark.parametrize("user", SUBJECTS)
def test_a_user_reads_exactly_the_topics_that_the_table_gives_it_whatever_it_subscribes_to(user, kind, read):
    of_this_kind = {topic for topic, its_kind in CONCRETE.items() if its_kind is kind}
    somebody_writes = {
        topic for topic in of_this_kind if any(expected(n, topic, RULES[kind].writers) for n in SUBJECTS)
    }
    allowed = {topic for topic in somebody_writes if expected(user, topic, RULES[kind].readers)}
    assert read[user] & of_this_kind == allowed


def test_nobody_writes_a_topic_outside_the_table(written):
    assert all(NOBODYS not in topics for topics in written.values())


def test_an_agent_speaks_and_listens_for_itself_alone(written, read):
    """The heart of the table once more, spelled out, so that a slip in the table shows here."""
    own = f"{TOPICS.root}/agents/agent-1/"
    assert {topic for topic in written["agent-1"] if not topic.startswith(own)} == set()
    for private in ("verdict", "prompt", "open/worker-1", "draft/worker-1", "completion/9", "metrics"):
        assert not any(topic.endswith(private) for topic in read["agent-1"] if not topic.startswith(own))
    assert TOPICS.verdict("agent-1") in read["agent-1"]
    assert TOPICS.prompt("agent-1") in read["agent-1"]
    assert TOPICS.verdict("agent-1") not in written["agent-1"]
    assert TOPICS.prompt("agent-2") not in written["agent-1"]


def test_a_worker_hears_only_what_is_sent_to_it(written, read):
    assert TOPICS.draft("agent-2", "worker-1") in read["worker-1"]
    assert not any("worker-2" in topic for topic in read["worker-1"])
    assert not any("/prompt" in topic or "/completion" in topic for topic in read["worker-1"])
    assert not any("worker-2" in topic for topic in written["worker-1"])


@pytest.mark.parametrize("kind", KINDS)
def test_another_user_cannot_take_over_a_connection_by_its_client_id(kind):
    with a_broker(KINDS[kind]) as broker:
        first, watcher = join(broker, "agent-1"), join(broker, WATCHER)
        inbox = listen(watcher, TOPICS.agent_metrics("agent-1"))
        thief = join(broker, "agent-2", client_id="agent-1")
        thief.publish(TOPICS.agent_metrics("agent-1"), b"forged", qos=1)
        thief.stop(Publication(TOPICS.agent_metrics("agent-2"), b"so that the first was looked at"))
        first.publish(TOPICS.agent_metrics("agent-1"), b"genuine")
        assert payloads(inbox, 1) == [b"genuine"]
        assert "already connected, closing old connection" not in broker.log
        first.stop()
        watcher.stop()
