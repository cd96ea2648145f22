"""Where the monitor shows what it hears. In: events, ticks. Out: a live picture, lines, or one snapshot."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.live import Live

from cloud_broker_worker.monitor.fleet import Event
from cloud_broker_worker.monitor.lines import event_line, event_value, warning_line, warning_value
from cloud_broker_worker.monitor.warn import Warned
from cloud_broker_worker.monitor.watch import PICTURE_S, Monitor

# Warnings are looked for so often where lines are printed; also the time for retained messages to come in.
_WARNINGS_S = 1.0
# The width of a table that no terminal bounds.
_PIPE_WIDTH = 120


class Picture:
    """Draws the live view over and over; what would be logged is shown in it."""

    def __init__(self, monitor: Monitor, live: Live) -> None:
        self._monitor, self._live = monitor, live
        self._due_s = 0.0

    def event(self, event: Event) -> None:
        """Nothing: the picture shows what is, not what happened."""

    def tick(self) -> None:
        """Draw, if it is time."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + PICTURE_S
            size = self._live.console.size
            has_color = self._live.console.color_system is not None
            picture = self._monitor.picture(size.width, size.height, has_color=has_color)
            self._live.update(picture, refresh=True)


class Lines:
    """Prints what happens, a line or a JSON object each; warnings when they begin and when they are over."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._warned: dict[tuple[str, str], Warned] = {}
        self._due_s = time.monotonic() + _WARNINGS_S

    def event(self, event: Event) -> None:
        """Say what happened, if it is about what was asked for."""
        settings, vocabulary = self._monitor.settings, self._monitor.vocabulary(event.agent)
        if settings.agent is not None and settings.agent != event.agent:
            return
        with_text = settings.agent is not None
        if settings.as_json:
            self._say_json(event_value(event, vocabulary, with_text=with_text))
        else:
            self._say(event_line(event, vocabulary, with_text=with_text))

    def tick(self) -> None:
        """Say which warnings began and which are over, if it is time to look."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + _WARNINGS_S
        current = {(each.kind, each.who): each for each in self._monitor.warnings()}
        for name in current.keys() - self._warned.keys():
            self._warn(current[name], is_over=False)
        for name in self._warned.keys() - current.keys():
            self._warn(self._warned[name], is_over=True)
        self._warned = current

    def _warn(self, warned: Warned, *, is_over: bool) -> None:
        if self._monitor.settings.as_json:
            self._say_json(warning_value(warned, is_over=is_over))
        else:
            self._say(warning_line(warned, is_over=is_over))

    def _say(self, line: str) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        sys.stdout.flush()

    def _say_json(self, value: dict[str, Any]) -> None:
        sys.stdout.write(_json(value))
        sys.stdout.flush()


class _KeptLog(logging.Handler):
    """Keeps the last lines of the log, for a screen that has no room beside the picture."""

    def __init__(self, kept: deque[str]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())


def show_live(monitor: Monitor) -> None:
    """Draw until it is told to stop."""
    logging.basicConfig(
        handlers=[_KeptLog(monitor.log)], force=True, level=monitor.settings.log_level.upper()
    )
    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        monitor.run(Picture(monitor, live))


def show_once(monitor: Monitor) -> None:
    """Listen for a while, the retained status at least, and print what there is."""
    settings, connection = monitor.settings, monitor.connection
    connection.expect_connected(settings.connect_timeout_s)
    monitor.run(_Silence(), until_s=time.monotonic() + settings.listen_s)
    if settings.as_json:
        sys.stdout.write(_json(monitor.snapshot()))
        return
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_PIPE_WIDTH)
    console.print(monitor.picture(console.width, None, has_color=console.color_system is not None))


class _Silence:
    """Shows nothing while there is only listening to do."""

    def event(self, event: Event) -> None: ...

    def tick(self) -> None: ...


def _json(value: dict[str, Any]) -> str:
    """One line that begins with the time."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, **value}) + "\n"
