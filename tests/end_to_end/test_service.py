"""An agent as a service: other MQTT clients ask it, and it answers piece by piece."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.tcp_proxy import TcpProxy
from cloud_broker_worker.private_broker import PrivateBroker
from schemas.messages import AgentMetrics, AgentStatus, Completion, Presence, Prompt, parse_message
from schemas.topics import Topics
from tests.conftest import USERS, Connect
from tests.end_to_end.stage import Program, Stage, running
from tests.gguf_files import Plan, write_gguf
from tests.mqtt_helpers import DEADLINE_S, listen, payloads, wait_for

pytestmark = pytest.mark.end_to_end

TOPICS = Topics()
PROMPT_TOPIC = TOPICS.prompt("agent-1")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Program]]:
    """An agent process far from its broker, so that an answer takes long enough to come in pieces."""
    with ExitStack() as stack:
        stage = Stage(stack.enter_context(PrivateBroker(USERS)))
        stack.enter_context(stage.worker())
        proxy = stack.enter_context(TcpProxy(stage.broker.port))
        far = stage.behind(proxy.port)
        proxy.set_network(delay_s=0.04)
        log = tmp_path_factory.mktemp("service") / "agent"
        yield stage, stack.enter_context(far.agent_program(log, mode="exact", temperature=0))


def ask(stage: Stage, log: Path, prompt: Prompt) -> list[Completion]:
    """Ask and listen as a user would at a shell: with mosquitto_pub and mosquitto_sub."""
    topic = TOPICS.completion("agent-1", prompt.id)
    listening = stage.mosquitto("mosquitto_sub", "operator-1", "-d", "-q", "1", "-t", topic)
    # Line by line: it would keep what it says to itself until there are 4 kB of it.
    with running(log, ["stdbuf", "-oL", *listening]) as listener:
        listener.wait_for_output("received SUBACK")
        stage.publish("client-1", PROMPT_TOPIC, prompt.to_bytes())
        listener.wait_for_output('"finish_reason"')
        lines = [line for line in listener.output.splitlines() if line.startswith("{")]
    return [parse_message(Completion, line.encode()) for line in lines]


def test_a_prompt_is_answered_in_pieces_without_gaps(service: tuple[Stage, Program], tmp_path: Path) -> None:
    stage, _ = service
    prompt = Prompt(id="first", text="I would like to plan a weekend by the sea.")
    pieces = ask(stage, tmp_path / "first", prompt)
    assert len(pieces) > 1
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    last = pieces[-1]
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.unverified == 0
    assert last.usage.tokens == last.usage.accepted + last.usage.recovered + last.usage.bonus > 0
    text = "".join(piece.text for piece in pieces)
    assert text.strip()

    again = ask(stage, tmp_path / "again", prompt.model_copy(update={"id": "again"}))
    assert "".join(piece.text for piece in again) == text


def test_a_prompt_brings_its_own_limits(service: tuple[Stage, Program], tmp_path: Path) -> None:
    stage, _ = service
    turns = json.loads('[{"role": "user", "content": "Is there a bus to the sea?"}]')
    prompt = Prompt(id="limits", messages=turns, max_tokens=3)
    last = ask(stage, tmp_path / "limits", prompt)[-1]
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.tokens == 3


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"text": "no id"}', b'{"id": "a/b", "text": ""}', b'{"id": "both"}'],
)
def test_a_broken_prompt_is_ignored_in_one_line(
    service: tuple[Stage, Program], tmp_path: Path, broken: bytes
) -> None:
    stage, agent = service
    before = agent.output
    stage.publish("client-1", PROMPT_TOPIC, broken)
    wait_for(lambda: len(agent.output) > len(before))
    (line,) = agent.output[len(before) :].splitlines()
    assert "ignored a prompt: " in line
    assert ask(stage, tmp_path / "next", Prompt(id="next", text="Hello!", max_tokens=1))


def test_a_role_that_the_template_does_not_know_ends_in_an_error_not_in_silence(
    stage: Stage, tmp_path: Path
) -> None:
    model = write_gguf(tmp_path / "model.gguf", Plan("strict", 600, 600))
    turns = json.loads('[{"role": "oracle", "content": "What will be?"}]')
    with stage.agent_program(tmp_path / "agent", model=model, mode="edge") as agent:
        (only,) = ask(stage, tmp_path / "asked", Prompt(id="role", messages=turns))
        assert only.finish_reason == "error"
        assert only.error is not None
        assert "there is no role oracle" in only.error
        last = ask(stage, tmp_path / "next", Prompt(id="next", text="Hello!", max_tokens=4))[-1]
        assert last.finish_reason in {"stop", "length"}
        assert "Traceback" not in agent.output


def test_a_service_says_when_it_comes_what_it_did_and_when_it_goes(
    stage: Stage, connect: Connect, tmp_path: Path
) -> None:
    operator = connect("operator-1", at=stage.broker)
    statuses = listen(operator, TOPICS.agent_status("agent-1"), qos=1)
    metrics = listen(operator, TOPICS.agent_metrics("agent-1"))
    completion = listen(operator, TOPICS.completion("agent-1", "one"), qos=1)
    with stage.agent_program(tmp_path / "agent", connect_timeout_s=0, mode="exact") as agent:
        stage.publish("client-1", PROMPT_TOPIC, b'{"id": "one", "text": "Hello!", "max_tokens": 3}')
        assert b'"finish_reason"' in payloads(completion, 1)[0]
        # Too long to be answered, but its bytes cross the socket, and a share of them pays for a report.
        stage.publish("client-1", PROMPT_TOPIC, Prompt(id="long", text="too long " * 9000).to_bytes())
        stage.publish("client-1", PROMPT_TOPIC, b'{"id": "two", "text": "Hello!", "max_tokens": 4}')
        told = parse_message(AgentMetrics, payloads(metrics, 1)[0])
        assert (told.request_id, told.answers) == ("two", 2)
        assert told.usage.tokens == told.usage.unverified == 7
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert "Traceback" not in agent.output
    heard: list[AgentStatus] = []
    while not heard or heard[-1].state is not Presence.OFFLINE:
        message = statuses.get(DEADLINE_S)
        assert message is not None
        heard.append(parse_message(AgentStatus, message.payload))
    assert heard[0].state is Presence.ONLINE
    assert len({status.boot for status in heard}) == 1
    assert "no worker is online" in {status.note for status in heard}
