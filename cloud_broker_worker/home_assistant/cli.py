"""`cloud-broker-worker home-assistant …`. In: argv. Out: a service, or lines on standard output."""

from __future__ import annotations

from cloud_broker_worker.home_assistant.announcer import Announcer
from cloud_broker_worker.home_assistant.purge import purge
from cloud_broker_worker.home_assistant.settings import DEFAULT_FILE, HomeAssistantSettings, PurgeSettings
from runtime.command_line import Command, on_termination, run_command, set_up_logging
from runtime.settings import load

_PROG = "cloud-broker-worker home-assistant"


def main(argv: list[str]) -> None:
    """`cloud-broker-worker home-assistant …`."""
    commands = {
        "run": Command("announce agents and workers as devices, for as long as it runs", _run),
        "purge": Command("take them all out again; stop `run` first", _purge),
    }
    run_command(_PROG, "Shows agents and workers in Home Assistant, by MQTT discovery.", commands, argv)


def _run(argv: list[str]) -> None:
    settings = load(HomeAssistantSettings, argv, prog=f"{_PROG} run", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    with Announcer(settings) as announcer:
        on_termination(announcer.stop)
        print(f"announcing what is under {settings.topic_root} on {settings.prefix}/device", flush=True)
        announcer.run()


def _purge(argv: list[str]) -> None:
    settings = load(PurgeSettings, argv, prog=f"{_PROG} purge", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    removed = purge(settings)
    for device in removed:
        print(f"removed {device.role.value} {device.name}")
    if not removed:
        print(f"nothing of {settings.topic_root} was announced on {settings.prefix}/device")
