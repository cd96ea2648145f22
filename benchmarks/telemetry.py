"""What telemetry costs an agent. In: the demo's models on a real Mosquitto. Out: shares of its bytes and time.

Both are shares within one run. Bytes: what operators are told (status, metrics) as they hear it, of all that crossed
the agent's socket. Time: what the agent's loop spends in it, of the time its answers take; and the processor
time of one page for Prometheus, which is read every five seconds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from rich.console import Console
from rich.table import Table

from cloud_broker_worker.private_broker import PrivateBroker, _free_port
from deploy.demo.prompts import load_prompts
from edge_agent.agent import Agent
from edge_agent.reports import message_bytes
from edge_agent.settings import AgentSettings
from runtime.exposition import serving
from runtime.mqtt import BrokerAddress, Connection
from schemas.messages import AgentMetrics
from schemas.topics import Role, Topics

MODELS = Path(__file__).parents[1] / "deploy/demo/models"
AGENT, WORKER, OPERATOR = "board-1", "cloud-1", "watcher"
TOPICS = Topics()
# Prometheus asks so often, says deploy/prometheus/prometheus.yml.
SCRAPE_S = 5.0
_ANSWERS = 200
_PAGES = 100
_WAIT_S = 30.0

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass
class _Spent:
    """Seconds spent in what is measured."""

    seconds: float = 0.0


def run() -> None:
    """Print a table: shares beside their limits, and what a report after each answer would have cost."""
    with ExitStack() as stack:
        broker = stack.enter_context(
            PrivateBroker({AGENT: Role.AGENT, WORKER: Role.WORKER, OPERATOR: Role.OPERATOR})
        )
        ears = Connection(_address(broker, OPERATOR))
        told = ears.subscribe(
            [(TOPICS.agent_status(AGENT), 1), (TOPICS.agent_metrics(AGENT), 0)], max_queued=4096
        )
        ears.start()
        stack.callback(ears.stop)
        assert ears.wait_connected(_WAIT_S)
        stack.enter_context(_worker(broker))
        port = _free_port(broker.host)
        settings = _settings(broker, f"{broker.host}:{port}")
        agent = Agent(settings)
        spent = _timed(agent)
        with serving(settings, agent.measured.read), agent:
            answering_s, reported_each_bytes = _answer_all(agent)
            crossed_bytes = (agent.connection.bytes_sent or 0) + (agent.connection.bytes_received or 0)
            page_s = _page_seconds(f"http://{broker.host}:{port}/metrics")
        time.sleep(0.5)  # for what is still on its way to the operator
        messages = [(message.topic, message.payload) for message in told.drain()]
    metrics = [payload for topic, payload in messages if topic == TOPICS.agent_metrics(AGENT)]
    # The will lies in the CONNECT, and is as long as the farewell.
    statuses = [payload for topic, payload in messages if topic == TOPICS.agent_status(AGENT)]
    status_bytes = sum(message_bytes(TOPICS.agent_status(AGENT), payload) for payload in statuses)
    metrics_bytes = sum(message_bytes(TOPICS.agent_metrics(AGENT), payload) for payload in metrics)
    table = Table(
        title=f"telemetry of an agent, {_ANSWERS} answers of the demo's models", title_justify="left"
    )
    table.add_column("")
    for column in ("share", "limit"):
        table.add_column(column, justify="right")
    table.add_row("bytes: status and metrics", _share(status_bytes + metrics_bytes, crossed_bytes), "2 %")
    table.add_row(f"  of these {len(metrics)} reports", _share(metrics_bytes, crossed_bytes), "")
    table.add_row("  a report after each answer instead", _share(reported_each_bytes, crossed_bytes), "")
    loop, pages = spent.seconds / answering_s, page_s / SCRAPE_S
    table.add_row("time: status, metrics, a page every 5 s", f"{loop + pages:.2%}", "1 %")
    table.add_row("  in the agent's loop", f"{loop:.3%}", "")
    table.add_row(f"  a page, {page_s * 1000:.1f} ms of processor time", f"{pages:.3%}", "")
    Console().print(table)


def _answer_all(agent: Agent) -> tuple[float, int]:
    """Answer many prompts; returns the seconds it took, and the bytes of a report after each one."""
    prompts = load_prompts()
    reports_bytes, started_s = 0, time.monotonic()
    for index in range(_ANSWERS):
        prompt = prompts[index % len(prompts)].as_prompt(f"q{index}", max_tokens=64)
        answer, pieces = agent.answer(prompt)
        for _ in pieces:
            pass
        single = AgentMetrics(
            request_id=prompt.id, risk=0.02, threshold=agent.policy.threshold, usage=answer.usage
        )
        reports_bytes += message_bytes(TOPICS.agent_metrics(AGENT), single.to_bytes())
    return time.monotonic() - started_s, reports_bytes


def _timed(agent: Agent) -> _Spent:
    """Time all that the agent's loop does for telemetry, from now on."""
    spent = _Spent()
    for owner, names in ((agent.measured, ("answered",)), (agent._reports, ("add", "is_due", "charge"))):  # noqa: SLF001
        for name in names:
            setattr(owner, name, _timing(getattr(owner, name), spent))
    agent._report = _timing(agent._report, spent)  # type: ignore[method-assign]  # noqa: SLF001
    if agent.verifier is not None:
        agent.verifier._on_worker = _timing(agent.verifier._on_worker, spent)  # noqa: SLF001
    return spent


def _timing(function: Callable[_P, _R], spent: _Spent) -> Callable[_P, _R]:
    def timed(*arguments: _P.args, **named: _P.kwargs) -> _R:
        started_s = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent.seconds += time.perf_counter() - started_s

    return timed


def _page_seconds(address: str) -> float:
    """Processor time of this process for one page, the reader's own part included."""

    def page() -> float:
        started_s = time.process_time()
        with urllib.request.urlopen(address, timeout=_WAIT_S) as answer:  # noqa: S310  our own address
            answer.read()
        return time.process_time() - started_s

    return statistics.median(page() for _ in range(_PAGES))


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}"


def _address(broker: PrivateBroker, name: str) -> BrokerAddress:
    return BrokerAddress(
        broker.host, broker.port, username=name, password=broker.credentials[name], client_id=name
    )


def _settings(broker: PrivateBroker, metrics_address: str) -> AgentSettings:
    return AgentSettings(
        name=AGENT,
        model=MODELS / "draft-q4_k_m.gguf",
        broker=f"mqtt://{AGENT}@{broker.host}:{broker.port}",
        password=broker.credentials[AGENT],
        threads=1,
        seed=1,
        connect_timeout_s=_WAIT_S,
        metrics_address=metrics_address,
    )


@contextmanager
def _worker(broker: PrivateBroker) -> Iterator[None]:
    """A worker in a process of its own, so that the agent's processor time is the agent's alone."""
    settings = {
        "NAME": WORKER,
        "MODEL": str(MODELS / "target-q8_0.gguf"),
        "BROKER": f"mqtt://{WORKER}@{broker.host}:{broker.port}",
        "PASSWORD": broker.credentials[WORKER],
        "THREADS": "1",
        "METRICS_ADDRESS": "off",
    }
    environment = os.environ | {f"HUNCH_WORKER_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "cloud_broker_worker.cli", "run"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
