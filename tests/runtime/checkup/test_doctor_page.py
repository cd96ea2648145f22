"""docs/doctor.md and the doctors look at the same things."""

from __future__ import annotations

import json
import re

import pytest

from cloud_broker_worker import settings as worker_settings
from cloud_broker_worker.doctor import WorkerDoctor
from edge_agent import settings as agent_settings
from edge_agent.doctor import AgentDoctor
from runtime.checkup.checks import Outcome, Result, passed, spoken
from runtime.checkup.show import document
from tests.test_project import ROOT

PAGE = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (A W|A|W) \|", PAGE, re.MULTILINE))


def doctors():
    """Both, with nothing to look at yet."""
    agent = AgentDoctor(agent_settings.DoctorSettings(name="one"), None)
    worker = WorkerDoctor(worker_settings.DoctorSettings(name="one"), None)
    return {"A": agent.checks(), "W": worker.checks()}


@pytest.mark.parametrize("who", ["A", "W"])
def test_the_page_explains_each_check_and_no_other(who):
    assert {name for name, of in ROWS.items() if who in of} == {check.name for check in doctors()[who]}


@pytest.mark.parametrize("who", ["A", "W"])
def test_a_check_needs_only_what_comes_before_it(who):
    seen: set[str] = set()
    for check in doctors()[who]:
        assert seen >= set(check.needs), check.name
        assert check.name not in seen
        seen.add(check.name)


def test_the_document_has_the_form_that_the_page_shows():
    shown = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    made = document([Result("settings", passed("fine"))], prog="edge-agent doctor", name="board-7")
    assert shown.keys() == made.keys()
    assert all(check.keys() == made["checks"][0].keys() for check in shown["checks"])
    assert {check["outcome"] for check in shown["checks"]} <= {outcome.value for outcome in Outcome}


def test_the_output_on_the_page_is_that_of_an_agents_checks():
    shown = re.findall(r"^. (?:passed|warned) +(\w+(?: \w+)?) {2,}", PAGE, re.MULTILINE)
    assert shown == [spoken(check.name) for check in doctors()["A"]]
