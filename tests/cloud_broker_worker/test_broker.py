"""The broker's set-up: what it writes, and that a real Mosquitto then lets nobody do more than the table says."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_broker_worker import broker as broker_module
from cloud_broker_worker.broker import (
    BrokerPlan,
    BrokerUser,
    acl_text,
    config_text,
    generate_password,
    write_broker,
)
from cloud_broker_worker.private_broker import PrivateBroker
from runtime.mqtt import BrokerAddress, Connection, Message, Publication
from schemas.errors import ConfigurationError
from schemas.topics import TOPIC_RULES, Role, TopicKind, Topics
from tests.conftest import USERS

TOPICS = Topics()
DEADLINE_S = 20.0
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


def plan_in(folder: Path, **changes) -> BrokerPlan:
    users = (BrokerUser("agent-1", Role.AGENT, "pass-1"), BrokerUser("worker-1", Role.WORKER, "pass-2"))
    return BrokerPlan(**{"folder": folder, "port": 18_830, "users": users, **changes})


# --------------------------------------------------------------------------- who may do what, for real


@pytest.fixture(scope="module")
def guarded() -> Iterator[PrivateBroker]:
    with PrivateBroker({**SUBJECTS, WATCHER: Role.OPERATOR}) as running:
        yield running


def join(broker: PrivateBroker, name: str, **options) -> Connection:
    address = BrokerAddress(broker.host, broker.port, name, broker.credentials[name], name)
    connection = Connection(address, **options)
    connection.start()
    assert connection.wait_connected(DEADLINE_S), connection.last_error
    return connection


def until(inbox, last_payload):
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


def test_another_user_cannot_take_over_a_connection_by_its_client_id(connect, broker):
    first = connect("agent-1")
    inbox = connect("operator-1").subscribe([(TOPICS.agent_metrics("agent-1"), 0)])
    thief = Connection(
        BrokerAddress(broker.host, broker.port, "agent-2", broker.credentials["agent-2"], client_id="agent-1")
    )
    thief.start()
    assert thief.wait_connected(DEADLINE_S)
    thief.publish(TOPICS.agent_metrics("agent-1"), b"forged", qos=1)
    thief.stop(Publication(TOPICS.agent_metrics("agent-2"), b"so that the first was looked at"))
    first.publish(TOPICS.agent_metrics("agent-1"), b"genuine")
    message = inbox.get(DEADLINE_S)
    assert message is not None
    assert message.payload == b"genuine"
    assert broker.log.count("already connected, closing old connection") == 0


# ------------------------------------------------------------------------------------------ the files


def test_the_files_can_be_read_by_their_owner_alone_and_hold_no_password(tmp_path):
    plan = plan_in(tmp_path / "broker")
    assert write_broker(plan) == plan.config_file
    for path in (plan.config_file, plan.acl_file, plan.password_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "pass-" not in path.read_text()
    assert re.findall(r"^([^:]+):\$7\$", plan.password_file.read_text(), re.MULTILINE) == [
        "agent-1",
        "worker-1",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand files over")
def test_root_hands_the_files_to_the_account_that_mosquitto_takes(tmp_path):
    plan = plan_in(tmp_path / "broker")
    write_broker(plan)
    owners = {path.owner() for path in (plan.folder, plan.config_file, plan.acl_file, plan.password_file)}
    assert owners <= {"mosquitto", "nobody"}


def test_writing_again_replaces_what_was_there(tmp_path):
    write_broker(plan_in(tmp_path))
    plan = plan_in(tmp_path, users=(BrokerUser("agent-9", Role.AGENT, "x"),))
    write_broker(plan)
    assert "agent-1" not in plan.acl_file.read_text() + plan.password_file.read_text()


def test_the_access_list_of_an_agent_is_what_the_design_says(tmp_path):
    plan = plan_in(
        tmp_path, users=(BrokerUser("pi-7", Role.AGENT, "x"), BrokerUser("eye", Role.OPERATOR, "y"))
    )
    assert acl_text(plan) == (
        "# Generated from schemas/topics.py; changes here are overwritten.\n\n"
        "user pi-7\n"
        "topic write hunch/v1/agents/pi-7/status\n"
        "topic write hunch/v1/agents/pi-7/open/+\n"
        "topic write hunch/v1/agents/pi-7/draft/+\n"
        "topic read hunch/v1/agents/pi-7/verdict\n"
        "topic write hunch/v1/agents/pi-7/metrics\n"
        "topic read hunch/v1/agents/pi-7/prompt\n"
        "topic write hunch/v1/agents/pi-7/completion/+\n"
        "topic read hunch/v1/workers/+/status\n"
        "topic read hunch/v1/profiles/+\n\n"
        "user eye\n"
        "topic read hunch/v1/#\n"
    )


def test_the_configuration_leaves_no_door_open(tmp_path):
    lines = config_text(plan_in(tmp_path)).splitlines()
    assert "allow_anonymous false" in lines
    assert "per_listener_settings false" in lines
    assert "set_tcp_nodelay true" in lines
    assert "persistence false" in lines
    assert "max_packet_size 262144" in lines
    assert lines.index("listener 18830 127.0.0.1") < lines.index("use_username_as_clientid true")
    assert "persistence true" in config_text(plan_in(tmp_path, persistent=True)).splitlines()


def test_it_listens_on_one_loopback_port_and_nowhere_else(broker):
    """Mosquitto 2.0 opens port 1883 of every interface for a listener's option that comes too early."""
    sockets = {
        link.readlink().name.removeprefix("socket:[").removesuffix("]")
        for link in Path(f"/proc/{broker.pid}/fd").iterdir()
        if link.readlink().name.startswith("socket:")
    }
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{broker.pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[9] in sockets
    ]
    assert listening == [f"0100007F:{broker.port:04X}"]


# ---------------------------------------------------------------------------------------- clear errors


def test_a_missing_mosquitto_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker_module, "_MORE_FOLDERS", ())
    with pytest.raises(ConfigurationError, match="mosquitto_passwd is not installed; install Mosquitto 2"):
        write_broker(plan_in(tmp_path))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot set up a broker in .*file"):
        write_broker(plan_in(tmp_path / "file"))


@pytest.mark.parametrize("password", ["", "with:colon", "two\nlines", "nul\0"])
def test_a_password_that_mosquitto_would_misread_is_refused(password):
    with pytest.raises(ConfigurationError, match="agent-1"):
        BrokerUser("agent-1", Role.AGENT, password)


def test_a_user_given_twice_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'agent-1' is given twice"):
        plan_in(tmp_path, users=(BrokerUser("agent-1", Role.AGENT, "x"),) * 2)


def test_passwords_are_long_random_and_shown_to_nobody():
    first, second = generate_password(), generate_password()
    assert first != second
    assert len(first) == 32
    assert first not in repr(BrokerUser("a", Role.AGENT, first))


def test_a_broker_outside_loopback_warns_that_passwords_can_be_read(tmp_path, caplog):
    write_broker(plan_in(tmp_path / "a"))
    assert not caplog.records
    write_broker(plan_in(tmp_path / "b", bind_address="0.0.0.0"))
    assert "in the clear" in caplog.text


# -------------------------------------------------------------------------------- the private broker


def test_a_broker_that_does_not_start_says_why_in_its_own_words(monkeypatch):
    monkeypatch.setattr(broker_module, "config_text", lambda plan: "no_such_option true\n")
    with (
        pytest.raises(ConfigurationError, match=r"ended at once; it said: .*no_such_option"),
        PrivateBroker({}),
    ):
        pass


def test_a_private_broker_is_gone_after_its_block_whatever_happened():
    with (  # noqa: PT012  the block is what is tested
        pytest.raises(KeyboardInterrupt),
        PrivateBroker({"agent-1": Role.AGENT}) as running,
    ):
        pid, folder = running.pid, running._folder
        raise KeyboardInterrupt
    assert not is_running(pid)
    assert folder is not None
    assert not folder.exists()


def test_a_restarted_broker_keeps_port_and_passwords_and_forgets_the_rest(private_broker, connect):
    broker = private_broker()
    port = broker.port
    connect("agent-1", at=broker).stop(Publication(TOPICS.agent_status("agent-1"), b"kept until the end"))
    broker.restart()
    assert broker.port == port
    watcher = connect("operator-1", at=broker)
    inbox = watcher.subscribe([(TOPICS.everything(), 1)])
    assert watcher.wait_connected(DEADLINE_S)
    connect("worker-1", at=broker).publish(TOPICS.worker_metrics("worker-1"), b"first")
    message = inbox.get(DEADLINE_S)
    assert message is not None
    assert message.payload == b"first"


_PARENT = """
import sys, time
from cloud_broker_worker.private_broker import PrivateBroker
with PrivateBroker({}) as broker:
    print(broker.pid, broker._folder, flush=True)
    time.sleep(600)
"""


def test_a_private_broker_dies_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        pid, folder = parent.stdout.readline().split()
        assert is_running(int(pid))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while is_running(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for path in [*Path(folder).iterdir(), Path(folder)]:  # the killed parent could not
        path.rmdir() if path.is_dir() else path.unlink()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
