"""A real worker and a real agent, as Prometheus reads them: all that is declared, and nothing else."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cloud_broker_worker.metrics import METRICS as WORKER_METRICS
from cloud_broker_worker.private_broker import _free_port
from edge_agent.metrics import METRICS as AGENT_METRICS
from runtime.measurements import Kind, Metric
from schemas.messages import Completion, Usage, parse_message
from schemas.topics import Topics
from tests.conftest import Connect
from tests.end_to_end.stage import Stage
from tests.mqtt_helpers import listen, payloads

pytestmark = pytest.mark.end_to_end

TOPICS = Topics()
LOCAL = "127.0.0.1"


def page(port: int) -> list[Sample]:
    with urllib.request.urlopen(f"http://{LOCAL}:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return [sample for family in families for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    (found,) = [each.value for each in samples if each.name == name and labels.items() <= each.labels.items()]
    return found


def check_declared(samples: list[Sample], metrics: tuple[Metric, ...], *, absent: set[str]) -> None:
    """Exactly the declared series are there, each with exactly the declared labels."""
    declared = {series: metric for metric in metrics for series in metric.series}
    own = [sample for sample in samples if sample.name.startswith("hunch_")]
    assert {sample.name for sample in own} == set(declared) - absent
    for sample in own:
        metric = declared[sample.name]
        bound = {"le"} if sample.name.endswith("_bucket") and metric.kind is Kind.HISTOGRAM else set()
        assert set(sample.labels) == set(metric.labels) | bound


def asked(stage: Stage, connect: Connect, num_answers: int) -> list[Usage]:
    """Ask the agent that often; returns what the answers say that they were made of."""
    listener = connect("operator-1", at=stage.broker)
    usages = []
    for index in range(num_answers):
        inbox = listen(listener, TOPICS.completion("agent-1", f"q{index}"), qos=1)
        question = {"id": f"q{index}", "text": "I need a table for two in Oakland.", "max_tokens": 24}
        stage.publish("client-1", TOPICS.prompt("agent-1"), json.dumps(question).encode())
        usage = None
        while usage is None:
            usage = parse_message(Completion, payloads(inbox, 1)[0]).usage
        usages.append(usage)
    return usages


def test_what_prometheus_reads_is_what_was_declared_and_what_happened(
    stage: Stage, connect: Connect, tmp_path: Path
) -> None:
    worker_port, agent_port = _free_port(LOCAL), _free_port(LOCAL)
    with (
        stage.worker_program(tmp_path / "worker", metrics_address=f"{LOCAL}:{worker_port}"),
        stage.agent_program(tmp_path / "agent", metrics_address=f"{LOCAL}:{agent_port}"),
    ):
        usages = asked(stage, connect, 3)
        agent, worker = page(agent_port), page(worker_port)
    check_declared(agent, AGENT_METRICS, absent=set())
    check_declared(worker, WORKER_METRICS, absent={"hunch_worker_dropped_messages_total"})

    assert value(agent, "hunch_agent_answers_total") == 3
    for origin in ("skipped", "accepted", "recovered", "bonus", "unverified"):
        told = sum(getattr(usage, origin) for usage in usages)
        assert value(agent, "hunch_agent_tokens_total", origin=origin) == told
    num_judged = sum(usage.num_judged for usage in usages)
    loss = sum(usage.num_judged * (usage.divergence or 0.0) for usage in usages)
    assert value(agent, "hunch_agent_judged_tokens_total") == num_judged
    assert value(agent, "hunch_agent_loss_total") == pytest.approx(loss)
    asked_about = value(agent, "hunch_agent_round_trip_seconds_count")
    for outcome in ("accepted", "recovered"):
        told = sum(getattr(usage, outcome) for usage in usages)
        assert value(worker, "hunch_worker_drafts_total", outcome=outcome) == told
        asked_about -= told
    assert asked_about == 0
    assert value(worker, "hunch_worker_opened_sessions_total") == 3
    assert value(worker, "hunch_worker_verdict_seconds_count") == sum(
        value(worker, "hunch_worker_drafts_total", outcome=outcome)
        for outcome in ("accepted", "recovered", "audited")
    )
    assert value(agent, "hunch_agent_served") == value(agent, "hunch_agent_connected") == 1
    assert value(worker, "hunch_worker_socket_bytes_total", direction="received") > 0


def test_a_port_that_is_taken_ends_an_agent_in_one_line(stage: Stage, tmp_path: Path) -> None:
    port = _free_port(LOCAL)
    with stage.agent_program(tmp_path / "first", mode="edge", metrics_address=f"{LOCAL}:{port}"):
        with (
            pytest.raises(AssertionError, match="code 2"),
            stage.agent_program(
                tmp_path / "second", "agent-2", mode="edge", metrics_address=f"{LOCAL}:{port}"
            ),
        ):
            pass
        (line,) = (tmp_path / "second").read_text().splitlines()
    assert line.endswith("Address already in use; set another --metrics-address, or off")
