"""The monitor beside a real fleet: what it hears is what was, and its output can be read by others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_broker_worker.monitor.fleet import AnswerEnded, Event
from cloud_broker_worker.monitor.settings import MonitorSettings
from cloud_broker_worker.monitor.trace import Trace
from cloud_broker_worker.monitor.watch import Monitor
from cloud_broker_worker.monitor.words import answer_pieces
from cloud_broker_worker.private_broker import PrivateBroker
from deploy.demo.prompts import load_prompts
from tests.end_to_end.stage import DRAFT_MODEL, Program, Stage, command, environment, read, running
from tests.mqtt_helpers import DEADLINE_S, wait_for

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def stage(private_broker: Callable[[], PrivateBroker]) -> Stage:
    return Stage(private_broker())


class Answers:
    """An output that lets a test wait for the ends of answers."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def event(self, event: Event) -> None:
        if isinstance(event, AnswerEnded):
            self.traces.append(event.trace)

    def tick(self) -> None:
        pass


@pytest.fixture
def monitor(stage: Stage) -> Iterator[Monitor]:
    login: dict[str, Any] = stage.login("operator-1")
    with Monitor(MonitorSettings(**login, model=DRAFT_MODEL)) as monitor:
        assert monitor.connection.wait_connected(DEADLINE_S)
        yield monitor


def monitor_environment(stage: Stage, **options: object) -> dict[str, str]:
    return environment("HUNCH_MONITOR_", stage.login("operator-1") | options)


def call(stage: Stage, *flags: str) -> subprocess.CompletedProcess[str]:
    argv = command("cloud-broker-worker", "monitor", *flags)
    env = monitor_environment(stage)
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("options", [{"risk": 0.1, "start_threshold": 0.3}, {"mode": "exact"}], ids=str)
def test_every_token_and_its_origin_is_what_the_agent_has_in_its_books(
    stage: Stage, monitor: Monitor, options: dict[str, Any]
) -> None:
    answers, readings = Answers(), []
    listening = threading.Thread(target=monitor.run, args=(answers,))
    listening.start()
    with stage.worker(), stage.agent(seed=1, **options) as agent:
        for index, prompt in enumerate(load_prompts()[:6]):
            readings.append(read(agent, prompt.as_prompt(f"q{index}", max_tokens=40)))
    wait_for(lambda: len(answers.traces) == len(readings))
    monitor.stop()
    listening.join(DEADLINE_S)
    for reading, trace in zip(readings, answers.traces, strict=True):
        heard = [(token.token_id, token.origin.value) for _, token in trace.tokens]
        books = [(record.token_id, record.origin.value) for record in reading.answer.ledger.records]
        assert heard == books
        text = "".join(piece.text for piece in answer_pieces(trace, monitor.vocabulary("agent-1")))
        assert text == "".join(piece.text for piece in reading.pieces)
        assert trace.divergence == pytest.approx(reading.answer.usage.divergence, abs=1e-4)  # rounded there


def test_a_monitor_in_a_pipe_says_each_event_in_a_line_of_json(stage: Stage, tmp_path: Path) -> None:
    argv = command("cloud-broker-worker", "monitor", "--json", "--agent", "agent-1")
    with running(tmp_path / "log", argv, monitor_environment(stage, model=DRAFT_MODEL)) as program:
        with stage.worker(), stage.agent(mode="exact") as agent:
            program.wait_for_output('"online"')
            stage.publish("worker-2", "hunch/v1/agents/agent-1/verdict", b"broken")
            reading = read(agent, load_prompts()[0].as_prompt("q0", max_tokens=20))
            program.wait_for_output('"answer"')
            program.wait_for_output('"broken"')
        program.wait_for_output('"offline"')
        values = lines_of(program)
    (answer,) = (value for value in values if value["event"] == "answer")
    assert answer["usage"]["tokens"] == len(reading.ids)
    assert [token["id"] for token in answer["trace"]["tokens"]] == reading.ids
    assert answer["trace"]["text"] == "".join(piece.text for piece in reading.pieces)
    (broken,) = (value for value in values if value.get("kind") == "broken")
    assert broken["text"].startswith("1 broken messages were not believed; the last: agent-1: ")


def lines_of(program: Program) -> list[dict[str, Any]]:
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    return [json.loads(line) for line in program.output.splitlines()]


def test_once_prints_what_is_retained_and_ends(stage: Stage) -> None:
    with stage.worker(), stage.agent():
        shown = call(stage, "--once")
        told = call(stage, "--once", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "1 agent  1 worker" in shown.stdout
    value = json.loads(told.stdout)
    assert [(agent["agent"], agent["online"]) for agent in value["agents"]] == [("agent-1", True)]
    assert value["workers"][0]["status"]["model"] == "hunch-demo-target"
    assert value["warnings"] == []


def test_without_a_broker_once_ends_in_one_clear_line(stage: Stage) -> None:
    stage.broker.kill()
    done = call(stage, "--once", "--connect-timeout-s", "0.5", "--log-level", "error")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "nothing listens at broker" in line


def test_a_status_topic_is_readable_by_itself(stage: Stage, tmp_path: Path) -> None:
    with stage.worker(), stage.agent():
        argv = stage.mosquitto("mosquitto_sub", "operator-1", "-t", "hunch/v1/+/+/status", "-v", "-C", "2")
        with running(tmp_path / "log", argv, dict(os.environ)) as listener:
            assert listener.wait() == 0
            lines = sorted(listener.output.splitlines())
    topics = [line.split(" ", 1)[0] for line in lines]
    assert topics == ["hunch/v1/agents/agent-1/status", "hunch/v1/workers/worker-1/status"]
    assert all(json.loads(line.split(" ", 1)[1])["state"] == "online" for line in lines)
