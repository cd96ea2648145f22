"""The command line of a worker. In: argv. Out: a service."""

from __future__ import annotations

import sys

from cloud_broker_worker.monitor import run as monitor
from cloud_broker_worker.settings import DEFAULT_FILE, WorkerSettings
from cloud_broker_worker.worker import Worker
from runtime.command_line import Command, dispatch, on_termination, set_up_logging
from runtime.settings import load

PROG = "cloud-broker-worker"


def main() -> int:
    """Entry point of `cloud-broker-worker`."""
    commands = {
        "run": Command("judge the drafts of agents with the target model", run),
        "monitor": Command("watch agents and workers, live or in lines", monitor.main),
    }
    return dispatch(PROG, "Judges the drafts of agents with a target model, over MQTT.", commands)


def run(argv: list[str]) -> None:
    """`cloud-broker-worker run`."""
    settings = load(WorkerSettings, argv, prog=f"{PROG} run", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    with Worker(settings) as worker:
        on_termination(worker.stop)
        print(f"worker {settings.name} judges with {worker.model.name}", flush=True)
        worker.run()


if __name__ == "__main__":
    sys.exit(main())
