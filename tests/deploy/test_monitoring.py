"""Dashboard, alert rules and page speak of metrics that the code exports, by the names it gives them.

Run as a program, this file writes the tables of docs/metrics.md anew.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml

from cloud_broker_worker.metrics import METRICS as WORKER_METRICS
from edge_agent.metrics import METRICS as AGENT_METRICS
from runtime.measurements import Kind, Metric

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
PAGE = Path(__file__).parents[2] / "docs/metrics.md"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/hunch.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
TESTED_RULES = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text(encoding="utf-8"))["tests"]

METRICS = {series: metric for metric in (*AGENT_METRICS, *WORKER_METRICS) for series in metric.series}
# What Prometheus itself adds to all that it reads.
ADDED_LABELS = {"job", "instance"}
# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$agent": ".*"}


def panel_expressions() -> dict[str, tuple[str, str]]:
    """Expression and legend of everything that the dashboard asks for."""
    return {
        f"{panel['title']} {target['refId']}": (target["expr"], target["legendFormat"])
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }


def parsed(expression: str) -> promql_parser.Expr:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return promql_parser.parse(expression)


def parts(node: promql_parser.Expr) -> Iterator[promql_parser.Expr]:
    """An expression and all that it is made of."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(node, name, None)
        if isinstance(inner, promql_parser.Expr):
            yield from parts(inner)
    for inner in getattr(node, "args", []):
        yield from parts(inner)


def known_labels(series: str) -> set[str]:
    if series == "up":
        return ADDED_LABELS
    metric = METRICS[series]
    return ADDED_LABELS | set(metric.labels) | ({"le"} if metric.kind is Kind.HISTOGRAM else set())


def check_names(expression: str) -> set[str]:
    """Every series and label is one that is exported; returns the labels that a result may carry."""
    nodes = list(parts(parsed(expression)))
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert selectors, expression
    available: set[str] = set()
    for selector in selectors:
        assert selector.name in METRICS or selector.name == "up", f"nothing exports {selector.name}"
        labels = known_labels(str(selector.name))
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels, expression
        available |= labels
    for node in nodes:
        modifier = getattr(node, "modifier", None)
        grouping = getattr(modifier, "matching", None) or modifier
        assert set(getattr(grouping, "labels", None) or ()) <= available, expression
    return available


@pytest.mark.parametrize("name", panel_expressions())
def test_a_panel_asks_for_what_the_code_exports(name: str) -> None:
    expression, legend = panel_expressions()[name]
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= check_names(expression)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_looks_at_what_the_code_exports_and_says_what_is_wrong(rule: dict[str, object]) -> None:
    available = check_names(str(rule["expr"]))
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    assert set(re.findall(r"\$labels\.(\w+)", annotations["summary"])) <= available


def test_a_name_that_nothing_exports_is_found() -> None:
    with pytest.raises(AssertionError, match="nothing exports"):
        check_names("rate(hunch_agent_tokens[5m])")
    with pytest.raises(AssertionError, match="origins"):
        check_names("sum by (origins) (hunch_agent_tokens_total)")
    with pytest.raises(AssertionError, match="mode"):
        check_names('hunch_agent_tokens_total{mode="edge"}')


def test_every_alert_is_tried_and_every_panel_has_its_place() -> None:
    fired = {
        name
        for tried in TESTED_RULES
        for expectation in tried["promql_expr_test"]
        for sample in expectation["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert fired == {rule["alert"] for rule in RULES}
    places = {
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    }
    assert len(places) == sum(p["gridPos"]["w"] * p["gridPos"]["h"] for p in DASHBOARD["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts.test.yml")], ids=str
)
def test_prometheus_itself_is_content_with_its_files(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("metric", [*AGENT_METRICS, *WORKER_METRICS], ids=lambda metric: metric.name)
def test_a_name_follows_the_conventions_of_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"hunch_(agent|worker)_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not re.search(r"_(ms|milliseconds|kb|count|sum|bucket)(_|$)", metric.name)
    assert "agent" not in metric.labels, "who an agent is comes from where it is read, never from the network"


# ------------------------------------------------------------------------------------------------- page

GENERATED = re.compile(r"<!-- generated: (\w+) -->\n\n(.*?)\n<!-- end -->", re.DOTALL)


def table(metrics: tuple[Metric, ...]) -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind.value} | {', '.join(f'`{label}`' for label in metric.labels)} "
        f"| {metric.help} |"
        for metric in metrics
    ]
    return "\n".join(["| metric | kind | labels | |", "|---|---|---|---|", *rows, ""])


TABLES = {"agent": table(AGENT_METRICS), "worker": table(WORKER_METRICS)}


def test_the_page_lists_the_metrics_as_the_code_has_them() -> None:
    found = dict(GENERATED.findall(PAGE.read_text(encoding="utf-8")))
    assert found == TABLES, "run python tests/deploy/test_monitoring.py"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        GENERATED.sub(lambda f: f"<!-- generated: {f[1]} -->\n\n{TABLES[f[1]]}\n<!-- end -->", text),
        encoding="utf-8",
    )
