"""The command line of a worker. In: argv. Out: a service."""

from __future__ import annotations

import sys

from cloud_broker_worker.monitor import run as monitor
from cloud_broker_worker.settings import DEFAULT_FILE, RunSettings
from cloud_broker_worker.worker import Worker
from runtime.command_line import Command, dispatch, on_termination, run_command, set_up_logging
from runtime.fetch_model import fetch_model_command
from runtime.settings import load
from schemas.errors import ConfigurationError

PROG = "cloud-broker-worker"


def main() -> int:
    """Entry point of `cloud-broker-worker`."""
    commands = {
        "run": Command("judge the drafts of agents with the target model", run),
        "monitor": Command("watch agents and workers, live or in lines", monitor.main),
        "broker": Command("set up a broker with TLS, and say who is let in", broker),
        "fetch-model": fetch_model_command(PROG),
    }
    return dispatch(PROG, "Judges the drafts of agents with a target model, over MQTT.", commands)


def run(argv: list[str]) -> None:
    """`cloud-broker-worker run`."""
    settings = load(RunSettings, argv, prog=f"{PROG} run", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    worker = Worker(settings)
    if settings.check:
        print(f"worker {settings.name} could judge with {worker.model.name} at {worker.connection.address}")
        return
    with worker:
        on_termination(worker.stop)
        print(f"worker {settings.name} judges with {worker.model.name}", flush=True)
        worker.run()


def broker(argv: list[str]) -> None:
    """`cloud-broker-worker broker …`."""
    try:
        # Here and not above: a worker needs no cryptography, and a machine without it can still run one.
        from cloud_broker_worker.provision.cli import commands  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise ConfigurationError(
            "setting up a broker needs the package cryptography; install it: pip install cryptography"
        ) from error
    prog = f"{PROG} broker"
    run_command(prog, "Sets up a Mosquitto with TLS, and says who is let in.", commands(prog), argv)


if __name__ == "__main__":
    sys.exit(main())
