"""`cloud-broker-worker monitor`, put together. In: settings. Out: a live view, lines, or one snapshot.

One loop owns the connection and the fleet; paho's thread only fills the inbox.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from typing import Any, Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live

from cloud_broker_worker.monitor import intake
from cloud_broker_worker.monitor.drill_down import drill_down
from cloud_broker_worker.monitor.fleet import Event, Fleet
from cloud_broker_worker.monitor.lines import (
    event_line,
    event_value,
    snapshot,
    trace_value,
    warning_line,
    warning_value,
)
from cloud_broker_worker.monitor.render import Frame, overview
from cloud_broker_worker.monitor.settings import DEFAULT_FILE, MonitorSettings
from cloud_broker_worker.monitor.warn import Warned, warnings
from runtime.command_line import on_termination, set_up_logging
from runtime.llama import Model
from runtime.mqtt import Connection, Message
from runtime.settings import load
from schemas.compression import BodyCodec
from schemas.errors import LinkError, WireError
from schemas.vocabulary import Vocabulary

# A picture is drawn so often: quick enough to read along, slow enough for a small machine.
_PICTURE_S = 0.25
# Warnings are looked for so often where lines are printed; also the time for retained messages to come in.
_WARNINGS_S = 1.0
# A fleet of a thousand agents sends that much in some seconds; then the oldest are dropped, visibly.
_MAX_QUEUED = 16_384
# A table that nobody's terminal bounds.
_LINES_WIDTH = 120


class _Out(Protocol):
    """Where it is shown: a live picture or lines."""

    def event(self, event: Event) -> None: ...

    def tick(self, *, is_last: bool) -> None: ...


class Monitor:
    """Listens to everything under the root. Use as a context manager."""

    def __init__(self, settings: MonitorSettings) -> None:
        self.settings = settings
        self.fleet = Fleet()
        self.model = None if settings.model is None else Model(settings.model)
        self.connection = Connection(settings.broker_address())
        # QoS 0 also for what is sent with more: a watcher must not make the broker keep anything for it.
        self._inbox = self.connection.subscribe([(settings.topics.everything(), 0)], max_queued=_MAX_QUEUED)
        self._bodies = BodyCodec()
        self._stopping = False
        self.log: deque[str] = deque(maxlen=2)

    def __enter__(self) -> Self:
        self.connection.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connection.stop()
        if self.model is not None:
            self.model.close()

    def stop(self) -> None:
        """Let `run` return soon; from any thread or a signal handler."""
        self._stopping = True
        self._inbox.wake()

    def run(self, out: _Out, *, until_s: float | None = None) -> None:
        """Listen and show, until `stop` is called or a time (time.monotonic) has come."""
        while not self._stopping and (until_s is None or time.monotonic() < until_s):
            self.step(out)
        out.tick(is_last=True)

    def step(self, out: _Out) -> None:
        """Take in all that is here, waiting a moment for the first, and show it."""
        first = self._inbox.get(_PICTURE_S)
        for message in [first, *self._inbox.drain()] if first is not None else []:
            for event in self._take(message):
                out.event(event)
        out.tick(is_last=False)

    def _take(self, message: Message) -> list[Event]:
        """One message, believed only as far as it keeps the rules."""
        agent = worker = None
        try:
            topic = self.settings.topics.parse(message.topic)
            agent, worker = topic.agent, topic.worker
            heard = intake.read(topic, message.payload, self._bodies)
        except WireError as error:
            self.fleet.hear_broken(agent, worker, error)
            return []
        return [] if heard is None else self.fleet.hear(heard, message.received_at)

    # --------------------------------------------------------------------------------- what is shown of it

    def frame(self, width: int, height: int | None) -> Frame:
        """The room for a picture, and what the monitor has to say of itself."""
        notes = [self.connection.last_error] if self.connection.last_error else []
        if self._inbox.num_dropped:
            notes.append(f"messages come faster than they are read here: {self._inbox.num_dropped} dropped")
        address = f"{self.connection.address}  {self.settings.topic_root}"
        clock = time.strftime("%H:%M:%S")
        return Frame(time.monotonic(), clock, address, width, height, (*notes, *self.log))

    def picture(self, width: int, height: int | None) -> RenderableType:
        """The fleet, or the one agent that was asked for."""
        frame = self.frame(width, height)
        name = self.settings.agent
        return overview(self.fleet, frame) if name is None else drill_down(self.fleet, name, frame, self.model)

    def warnings(self) -> list[Warned]:
        """What an operator should look at now."""
        found = warnings(self.fleet, time.monotonic())
        name = self.settings.agent
        return found if name is None else [each for each in found if each.who in {name, "fleet", "monitor"}]

    def concerns(self, event: Event) -> bool:
        """Whether an event is about the agent that was asked for, if one was."""
        return self.settings.agent is None or getattr(event, "agent", getattr(event, "name", None)) == self.settings.agent


def main(argv: list[str]) -> None:
    """`cloud-broker-worker monitor`."""
    settings = load(MonitorSettings, argv, prog="cloud-broker-worker monitor", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    with Monitor(settings) as monitor:
        on_termination(monitor.stop)
        if settings.once:
            _show_once(monitor)
        elif sys.stdout.isatty() and not settings.as_json:
            _show_live(monitor)
        else:
            monitor.run(_Lines(monitor))
