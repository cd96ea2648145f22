"""The monitor's ears. In: everything under the root. Out: the fleet, and pictures and values of it.

One loop owns the connection and the fleet; paho's thread only fills the inbox.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol, Self

from rich.console import RenderableType

from cloud_broker_worker.codebooks import Codebooks
from cloud_broker_worker.monitor import intake
from cloud_broker_worker.monitor.drill_down import drill_down
from cloud_broker_worker.monitor.fleet import Event, Fleet
from cloud_broker_worker.monitor.lines import agent_snapshot, snapshot
from cloud_broker_worker.monitor.render import Frame, overview
from cloud_broker_worker.monitor.settings import MonitorSettings
from cloud_broker_worker.monitor.warn import Warned, warnings
from runtime.llama import Model
from runtime.mqtt import Connection, Message
from schemas.errors import WireError
from schemas.vocabulary import Vocabulary

# A picture is drawn so often: quick enough to read along, slow enough for a small machine.
PICTURE_S = 0.25
# A fleet of a thousand agents sends that much in some seconds; then the oldest are dropped, visibly.
_MAX_QUEUED = 16_384


class Out(Protocol):
    """Where it is shown: a live picture, or lines."""

    def event(self, event: Event) -> None:
        """Something has happened."""

    def tick(self) -> None:
        """Time has passed, and messages may have come in."""


class Monitor:
    """Listens to everything under the root. Use as a context manager."""

    def __init__(self, settings: MonitorSettings) -> None:
        self.settings = settings
        self.fleet = Fleet(time.monotonic())
        self._model = None if settings.model is None else Model(settings.model, vocab_only=True)
        table = None if self._model is None else self._model.token_table()
        self._table = None if table is None else Vocabulary(table.texts, table.kinds)
        self.connection = Connection(settings.broker_address())
        # QoS 0 also for what is sent with more: a watcher must not make the broker keep anything for it.
        self._inbox = self.connection.subscribe([(settings.topics.everything(), 0)], max_queued=_MAX_QUEUED)
        self._codebooks = Codebooks()
        self._stopping = False
        self.log: deque[str] = deque(maxlen=2)

    def __enter__(self) -> Self:
        self.connection.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connection.stop()
        if self._model is not None:
            self._model.close()

    def stop(self) -> None:
        """Let `run` return soon; from any thread or a signal handler."""
        self._stopping = True
        self._inbox.wake()

    def run(self, out: Out, *, until_s: float | None = None) -> None:
        """Listen and show, until `stop` is called or a time (time.monotonic) has come."""
        while not self._stopping and (until_s is None or time.monotonic() < until_s):
            self.step(out)

    def step(self, out: Out) -> None:
        """Take in all that is here, waiting a moment for the first, and show it."""
        first = self._inbox.get(PICTURE_S)
        for message in [first, *self._inbox.drain()] if first is not None else []:
            for event in self._take(message):
                out.event(event)
        out.tick()

    def _take(self, message: Message) -> list[Event]:
        """One message, believed only as far as it keeps the rules."""
        agent = worker = None
        try:
            topic = self.settings.topics.parse(message.topic)
            agent, worker = topic.agent, topic.worker
            heard = intake.read(topic, message.payload, self._codebooks)
        except WireError as error:
            self.fleet.hear_broken(agent, worker, error)
            return []
        return [] if heard is None else self.fleet.hear(heard, message.received_at)

    # --------------------------------------------------------------------------------- what is shown of it

    def vocabulary(self, agent: str | None) -> Model | None:
        """What turns an agent's token ids into text; None where that is not known."""
        view = None if agent is None else self.fleet.agents.get(agent)
        trace = None if view is None else view.trace
        if trace is None or trace.vocabulary is None or self._table is None:
            return self._model
        return self._model if self._table.agrees_with(trace.vocabulary) else None

    def frame(self, width: int, height: int | None, *, has_color: bool) -> Frame:
        """The room for a picture, and what the monitor has to say of itself."""
        notes = [self.connection.last_error] if self.connection.last_error else []
        name = self.settings.agent
        if name is not None and self._model is not None and self.vocabulary(name) is None:
            notes.append(f"the vocabulary of {self._model.path} is not that of {name}; give its draft model")
        if self._inbox.num_dropped:
            notes.append(f"messages come faster than they are read here: {self._inbox.num_dropped} dropped")
        address = f"{self.connection.address}  {self.settings.topic_root}"
        clock = time.strftime("%H:%M:%S")
        return Frame(time.monotonic(), clock, address, width, height, (*notes, *self.log), has_color)

    def picture(self, width: int, height: int | None, *, has_color: bool) -> RenderableType:
        """The fleet, or the one agent that was asked for."""
        frame = self.frame(width, height, has_color=has_color)
        name = self.settings.agent
        return (
            overview(self.fleet, frame)
            if name is None
            else drill_down(self.fleet, name, frame, self.vocabulary(name))
        )

    def snapshot(self) -> dict[str, Any]:
        """The same as a JSON value."""
        now_s, name = time.monotonic(), self.settings.agent
        if name is None:
            return snapshot(self.fleet, now_s)
        return agent_snapshot(self.fleet, name, now_s, self.vocabulary(name))

    def warnings(self) -> list[Warned]:
        """What an operator should look at now."""
        found = warnings(self.fleet, time.monotonic())
        name = self.settings.agent
        return found if name is None else [each for each in found if each.who in {name, "fleet", "monitor"}]
