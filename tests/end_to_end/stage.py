"""What these tests are played on. In: a broker, settings that differ from the usual. Out: agents and workers.

An answer is a generator, so a test decides what happens between any two of its tokens: it reads a few, breaks
something, waits until that is broken, and reads on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud_broker_worker.private_broker import PrivateBroker
from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.worker import Worker
from edge_agent.agent import Agent
from edge_agent.ledger import Origin
from edge_agent.settings import AgentSettings
from edge_agent.text import Piece
from schemas.messages import Prompt
from tests.mqtt_helpers import DEADLINE_S, wait_for

MODELS = Path(__file__).parents[2] / "deploy/demo/models"
DRAFT_MODEL = MODELS / "draft-q4_k_m.gguf"
TARGET_MODEL = MODELS / "target-q8_0.gguf"
ROOT = Path(__file__).parents[2]

# Verdicts take milliseconds, but the machine may be busy with something else for seconds.
PATIENCE_S = 60.0
VERIFIED = (Origin.ACCEPTED, Origin.RECOVERED, Origin.BONUS)


@dataclass(frozen=True)
class Stage:
    """A broker, and everyone on it. `port` is where they connect: a proxy's, or the broker's own."""

    broker: PrivateBroker
    port: int | None = None

    def behind(self, port: int) -> Stage:
        """The same broker, reached through a proxy at `port`."""
        return Stage(self.broker, port)

    def login(self, name: str) -> dict[str, str]:
        """The settings that say who connects, and where."""
        return {
            "name": name,
            "broker": f"mqtt://{name}@{self.broker.host}:{self.port or self.broker.port}",
            "password": self.broker.credentials[name],
        }

    @contextlib.contextmanager
    def agent(self, name: str = "agent-1", **options: Any) -> Iterator[Agent]:
        """An agent in this thread, connected and aware of the workers there are."""
        usual: dict[str, Any] = {
            "model": DRAFT_MODEL,
            "threads": 1,
            "verdict_timeout_s": PATIENCE_S,
            "connect_timeout_s": DEADLINE_S,
        }
        with Agent(AgentSettings(**(usual | self.login(name) | options))) as agent:
            yield agent

    @contextlib.contextmanager
    def worker(self, name: str = "worker-1", **options: Any) -> Iterator[Worker]:
        """A worker in a thread of its own, connected."""
        usual: dict[str, Any] = {"model": TARGET_MODEL, "threads": 1, "beat_s": 60.0}
        with Worker(WorkerSettings(**(usual | self.login(name) | options))) as worker:
            assert worker.connection.wait_connected(DEADLINE_S), worker.connection.last_error
            thread = threading.Thread(target=worker.run, name=name)
            thread.start()
            try:
                yield worker
            finally:
                worker.stop()
                thread.join(DEADLINE_S)
                assert not thread.is_alive(), f"{name} does not stop"

    def agent_environment(self, name: str = "agent-1", **options: object) -> dict[str, str]:
        """The environment of an agent that is a process of its own."""
        usual: dict[str, object] = {
            "model": DRAFT_MODEL,
            "threads": 1,
            "verdict_timeout_s": PATIENCE_S,
            "connect_timeout_s": DEADLINE_S,
        }
        return environment("HUNCH_AGENT_", usual | self.login(name) | options)

    def worker_environment(self, name: str = "worker-1", **options: object) -> dict[str, str]:
        """The environment of a worker that is a process of its own."""
        # Metrics are on by default, at one port: several workers at once would complain.
        usual: dict[str, object] = {
            "model": TARGET_MODEL,
            "threads": 1,
            "beat_s": 60,
            "metrics_address": "off",
        }
        return environment("HUNCH_WORKER_", usual | self.login(name) | options)

    @contextlib.contextmanager
    def worker_program(self, log: Path, name: str = "worker-1", **options: object) -> Iterator[Program]:
        """A worker process that has said that it judges."""
        with running(
            log, command("cloud-broker-worker", "run"), self.worker_environment(name, **options)
        ) as program:
            program.wait_for_output(f"worker {name} judges with")
            yield program

    @contextlib.contextmanager
    def agent_program(self, log: Path, name: str = "agent-1", **options: object) -> Iterator[Program]:
        """An agent process that has said that it waits for prompts."""
        with running(log, command("edge-agent", "run"), self.agent_environment(name, **options)) as program:
            program.wait_for_output(f"agent {name} waits on")
            yield program

    def mosquitto(self, program: str, name: str, *arguments: str) -> list[str]:
        """The command line of one of Mosquitto's own clients, logged in as `name`."""
        login = ["-u", name, "-P", self.broker.credentials[name], "-i", name]
        return [program, "-V", "5", "-h", self.broker.host, "-p", str(self.broker.port), *login, *arguments]

    def publish(self, name: str, topic: str, payload: bytes) -> None:
        """Publish with Mosquitto's own client, as anybody could; returns when the broker has it."""
        argv = self.mosquitto("mosquitto_pub", name, "-q", "1", "-t", topic, "-s" if payload else "-n")
        subprocess.run(argv, input=payload, check=True, capture_output=True, timeout=DEADLINE_S)


def environment(prefix: str, settings: dict[str, object]) -> dict[str, str]:
    """This process's environment with settings in it."""
    return os.environ | {prefix + name.upper(): str(value) for name, value in settings.items()}


def command(name: str, *arguments: str) -> list[str]:
    """One of the console commands that were installed beside this Python."""
    return [str(Path(sys.executable).with_name(name)), *arguments]


@dataclass
class Program:
    """A command that runs; all that it says goes into `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """What it has said so far, on standard output and standard error."""
        return self.log.read_text(encoding="utf-8")

    def wait_for_output(self, text: str) -> None:
        """Wait until it has said something; fails at once when it ends before."""
        wait_for(lambda: text in self.output or self.process.poll() is not None)
        assert text in self.output, f"it ended with code {self.process.returncode}: {self.output}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it without a farewell."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def running(log: Path, argv: list[str], env: dict[str, str] | None = None) -> Iterator[Program]:
    """Start a command; it has ended when this does."""
    with log.open("ab") as output:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield Program(process, log)
    finally:
        process.kill()  # also where it is stopped; a second end does no harm
        process.wait(DEADLINE_S)


@dataclass
class Reading:
    """An answer being read, token by token. Nothing that was read may change later."""

    agent: Agent
    prompt: Prompt
    pieces: list[Piece] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answer, self._stream = self.agent.answer(self.prompt)
        self._seen: list[int] = []

    @property
    def ids(self) -> list[int]:
        """The answer's tokens so far."""
        return self.answer.ledger.ids[self.answer.ledger.num_prompt :]

    @property
    def origins(self) -> list[Origin]:
        """How each of them came to be."""
        return [record.origin for record in self.answer.ledger.records]

    def read(self) -> bool:
        """Read one piece; False where there is none left."""
        piece = next(self._stream, None)
        assert self.ids[: len(self._seen)] == self._seen, "a token was taken back"
        self._seen = self.ids
        if piece is not None:
            self.pieces.append(piece)
        return piece is not None

    def until(self, condition: Callable[[], bool]) -> None:
        """Read until the condition holds, which it must before the answer ends."""
        while not condition():
            assert self.read(), f"the answer ended before: {self.origins}"

    def until_new(self, *origins: Origin) -> None:
        """Read until a token of one of these origins is added to those that there are."""
        start = len(self.origins)
        self.until(lambda: any(origin in origins for origin in self.origins[start:]))

    def to_end(self) -> list[int]:
        """Read the rest; returns all tokens, having checked text and counts against them."""
        while self.read():
            pass
        usage = self.answer.usage
        counted = usage.skipped + usage.accepted + usage.recovered + usage.bonus + usage.unverified
        assert counted == usage.tokens == len(self.ids) > 0
        raw = b"".join(self.agent.model.piece(token_id) for token_id in self.ids)
        assert "".join(piece.text for piece in self.pieces) == raw.decode("utf-8", "replace")
        return self.ids


def read(agent: Agent, prompt: Prompt) -> Reading:
    """An answer, read to its end."""
    reading = Reading(agent, prompt)
    reading.to_end()
    return reading


def worker_in_use(agent: Agent) -> str | None:
    """The worker that holds the answer's session, if there is one."""
    assert agent._verifier is not None
    session = agent._verifier._session
    return None if session is None else session.worker


def wait_for_news(agent: Agent) -> None:
    """Wait until the status of a worker has reached the agent, to be taken in with its next token."""
    wait_for(lambda: agent._verifier is not None and len(agent._verifier._statuses))


def wait_for_verdict(agent: Agent) -> None:
    """Wait until a worker's frame has reached the agent, to be taken in with its next token."""
    wait_for(lambda: agent._verifier is not None and len(agent._verifier._verdicts))


def num_missed(agent: Agent) -> int:
    """How many verdicts did not come in time for the answer under way."""
    assert agent._verifier is not None
    return agent._verifier.round_trips.num_missed
