"""A doctor's findings for the tests, by the name of the check. In: settings. Out: findings."""

from __future__ import annotations

from typing import Any

from cloud_broker_worker import settings as worker_settings
from cloud_broker_worker.doctor import WorkerDoctor
from edge_agent import settings as agent_settings
from edge_agent.doctor import AgentDoctor
from runtime.checkup.checks import Finding, Outcome, run_checks
from tests.end_to_end.stage import DRAFT_MODEL, TARGET_MODEL

PASSED, WARNED, FAILED, SKIPPED = Outcome
# What may come out otherwise on a machine that is small, busy, or that nobody sets the clock of.
MACHINE = {"threads", "clock", "echo"}


def examine_agent(**options: Any) -> dict[str, Finding]:
    """What `edge-agent doctor` finds."""
    usual: dict[str, Any] = {"model": DRAFT_MODEL, "threads": 1, "verdict_timeout_s": 30.0}
    settings = agent_settings.DoctorSettings(**(usual | options))
    with AgentDoctor(settings, None) as doctor:
        return {result.name: result.finding for result in run_checks(doctor.checks())}


def examine_worker(**options: Any) -> dict[str, Finding]:
    """What `cloud-broker-worker doctor` finds."""
    usual: dict[str, Any] = {"model": TARGET_MODEL, "threads": 1}
    settings = worker_settings.DoctorSettings(**(usual | options))
    with WorkerDoctor(settings, None) as doctor:
        return {result.name: result.finding for result in run_checks(doctor.checks())}


def at_fault(found: dict[str, Finding]) -> set[str]:
    """The names of the checks that failed."""
    return {name for name, finding in found.items() if finding.outcome is FAILED}


def mend(finding: Finding) -> str:
    """What to do about it."""
    assert finding.mend is not None, finding
    return finding.mend
