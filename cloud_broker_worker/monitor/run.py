"""`cloud-broker-worker monitor`. In: argv. Out: a live view, lines, or one snapshot."""

from __future__ import annotations

import sys

from cloud_broker_worker.monitor.settings import DEFAULT_FILE, MonitorSettings
from cloud_broker_worker.monitor.show import Lines, show_live, show_once
from cloud_broker_worker.monitor.watch import Monitor
from runtime.command_line import on_termination, set_up_logging
from runtime.settings import load


def main(argv: list[str]) -> None:
    """`cloud-broker-worker monitor`."""
    settings = load(MonitorSettings, argv, prog="cloud-broker-worker monitor", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    with Monitor(settings) as monitor:
        on_termination(monitor.stop)
        if settings.once:
            show_once(monitor)
        elif sys.stdout.isatty() and not settings.as_json:
            show_live(monitor)
        else:
            monitor.run(Lines(monitor))
