"""The dashboard in front of a real fleet: a real Prometheus answers all that its panels ask."""

from __future__ import annotations

import json
import math
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_broker_worker.private_broker import _free_port
from schemas.topics import Topics
from tests.deploy.test_monitoring import PROMETHEUS, VARIABLES, panel_expressions
from tests.end_to_end.stage import Stage, running
from tests.mqtt_helpers import wait_for

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

TOPICS = Topics()
LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{LOCAL}:{self.port}/api/v1/{path}?{query}", timeout=10) as page:
            return json.load(page)["data"]

    def values(self, expression: str) -> list[float]:
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        return [float(each["value"][1]) for each in self.get("query", query=expression)["result"]]


@pytest.fixture
def prometheus(stage: Stage, tmp_path: Path) -> Iterator[Prometheus]:
    """Our configuration with a quicker beat, reading a worker and an agent."""
    ports = {job: _free_port(LOCAL) for job in ("hunch-worker", "hunch-agent", "prometheus")}
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"{LOCAL}:{ports[job['job_name']]}"]}]
    (tmp_path / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    arguments = {
        "config.file": tmp_path / "prometheus.yml",
        "storage.tsdb.path": tmp_path / "data",
        "web.listen-address": f"{LOCAL}:{ports['prometheus']}",
    }
    with ExitStack() as stack:
        for role, start in (("worker", stage.worker_program), ("agent", stage.agent_program)):
            address = f"{LOCAL}:{ports[f'hunch-{role}']}"
            stack.enter_context(start(tmp_path / role, metrics_address=address))
        argv = ["prometheus", *(f"--{name}={value}" for name, value in arguments.items())]
        program = stack.enter_context(running(tmp_path / "log", argv))
        program.wait_for_output("Server is ready")
        yield Prometheus(ports["prometheus"])


def _is_news(prometheus: Prometheus, expression: str, before: list[float]) -> bool:
    return prometheus.values(expression) != before


def test_every_panel_of_the_dashboard_has_something_to_show(stage: Stage, prometheus: Prometheus) -> None:
    wait_for(lambda: prometheus.values('sum(up{job=~"hunch-.+"})') == [2.0])
    # Broken frames are dropped, so that what was turned away has a reason; of a series that is new, a rate
    # only tells from its second value on.
    for _ in range(2):
        before = prometheus.values("hunch_worker_dropped_messages_total")
        stage.publish("agent-2", TOPICS.draft("agent-2", "worker-1"), b"broken")
        wait_for(partial(_is_news, prometheus, "hunch_worker_dropped_messages_total", before))
    for index in range(4):
        prompt = {"id": f"q{index}", "text": "I need a table for two in Oakland.", "max_tokens": 32}
        stage.publish("client-1", TOPICS.prompt("agent-1"), json.dumps(prompt).encode())
    wait_for(lambda: prometheus.values("hunch_agent_answers_total") == [4.0])
    empty = {name: expression for name, (expression, _) in panel_expressions().items()}

    def all_have_shown_something() -> bool:
        for name, expression in list(empty.items()):
            values = prometheus.values(expression)
            if values and not any(math.isnan(value) for value in values):
                del empty[name]
        return not empty

    try:
        wait_for(all_have_shown_something)
    except AssertionError:
        pytest.fail(f"nothing to show: {sorted(empty)}")
    firing = {
        alert["labels"]["alertname"]
        for alert in prometheus.get("alerts")["alerts"]
        if alert["state"] == "firing"
    }
    # The broken frame was refused; nothing else is amiss.
    assert firing <= {"HunchRefusals"}
