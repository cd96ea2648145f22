"""The command line of a worker. In: argv. Out: a service."""

from __future__ import annotations

import sys

from cloud_broker_worker.doctor import WorkerDoctor
from cloud_broker_worker.home_assistant import cli as home_assistant
from cloud_broker_worker.monitor import run as monitor
from cloud_broker_worker.settings import DEFAULT_FILE, DoctorSettings, RunSettings
from cloud_broker_worker.worker import Worker
from runtime.checkup.command import check_up
from runtime.command_line import Command, dispatch, on_termination, run_command, set_up_logging
from runtime.exposition import serving
from runtime.fetch_model import fetch_model_command
from runtime.one_at_a_time import claim_name
from runtime.settings import load
from schemas.errors import ConfigurationError

PROG = "cloud-broker-worker"


def main() -> int:
    """Entry point of `cloud-broker-worker`."""
    commands = {
        "run": Command("judge the drafts of agents with the target model", run),
        "doctor": Command("check all that a worker needs: model, machine, broker", doctor),
        "monitor": Command("watch agents and workers, live or in lines", monitor.main),
        "home-assistant": Command("show agents and workers in Home Assistant", home_assistant.main),
        "broker": Command("set up a broker with TLS, and say who is let in", broker),
        "fetch-model": fetch_model_command(PROG),
    }
    return dispatch(PROG, "Judges the drafts of agents with a target model, over MQTT.", commands)


def run(argv: list[str]) -> None:
    """`cloud-broker-worker run`."""
    settings = load(RunSettings, argv, prog=f"{PROG} run", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    if settings.check:
        worker = Worker(settings)
        print(f"worker {settings.name} could judge with {worker.model.name} at {worker.connection.address}")
        return
    with claim_name(settings.broker_address()):
        worker = Worker(settings)
        with serving(settings, worker.measured.read), worker:
            on_termination(worker.stop)
            print(f"worker {settings.name} judges with {worker.model.name}", flush=True)
            worker.run()


def doctor(argv: list[str]) -> None:
    """`cloud-broker-worker doctor`."""
    check_up(f"{PROG} doctor", argv, DoctorSettings, DEFAULT_FILE, WorkerDoctor)


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
