"""Keeps Home Assistant told of a fleet. In: status messages. Out: retained discovery messages.

One loop owns the connection and the announcements; paho's thread only fills the inbox.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Self

from cloud_broker_worker.home_assistant.announcements import Announcements
from cloud_broker_worker.home_assistant.settings import HomeAssistantSettings
from runtime.log_throttle import LogThrottle
from runtime.mqtt import Connection, Message
from schemas.errors import LinkError, WireError
from schemas.home_assistant import BIRTH, config_filter, device_of

logger = logging.getLogger(__name__)

# Many announce themselves when Home Assistant has started; its documentation asks each to wait a random moment.
_AFTER_BIRTH_S = (0.5, 3.0)
_RETRY_S = 1.0
# The broker sends us what we publish. Later than this, it has not taken it.
_ECHO_S = 5.0
# A worker's status comes every five seconds; at a start there are those of all devices at once.
_MAX_QUEUED = 16_384


class Announcer:
    """Announces agents and workers as devices. Use as a context manager."""

    def __init__(self, settings: HomeAssistantSettings) -> None:
        self.settings = settings
        self._announcements = Announcements(settings.topics, settings.prefix)
        self._unconfirmed: dict[str, tuple[bytes, float]] = {}  # by topic: what was published, and when
        self._throttle = LogThrottle()
        self._stopping = False
        self.connection = Connection(settings.broker_address())
        # Status before discovery messages: that is also the order in which a broker tells what it has kept.
        topics = settings.topics
        filters = (topics.all_agent_status(), topics.all_worker_status(), config_filter(settings.prefix))
        self._inbox = self.connection.subscribe(
            [(each, 1) for each in (*filters, settings.birth)], max_queued=_MAX_QUEUED
        )

    def __enter__(self) -> Self:
        self.connection.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connection.stop()

    def run(self) -> None:
        """Announce until `stop` is called."""
        while not self._stopping:
            self.step()

    def stop(self) -> None:
        """Let `run` return soon; from any thread or a signal handler."""
        self._stopping = True
        self._inbox.wake()

    def step(self) -> None:
        """Hear what comes in, publish what is due."""
        first = self._inbox.get(self._wait_s())
        for message in [first, *self._inbox.drain()] if first is not None else []:
            self._take(message)
        self._publish(time.monotonic())

    def _wait_s(self) -> float | None:
        now_s = time.monotonic()
        due_s = self._announcements.next_at_s(now_s)
        if due_s is not None and due_s <= now_s:
            return _RETRY_S  # it was tried just now
        times = [due_s, *(sent_s + _ECHO_S for _, sent_s in self._unconfirmed.values())]
        return min((max(0.0, at_s - now_s) for at_s in times if at_s is not None), default=None)

    def _take(self, message: Message) -> None:
        if message.topic == self.settings.birth:
            if message.payload == BIRTH and not message.retained:
                self._announcements.again(time.monotonic() + random.uniform(*_AFTER_BIRTH_S))
        elif device_of(self.settings.prefix, message.topic) is not None:
            self._take_config(message)
        elif message.topic.startswith(f"{self.settings.topic_root}/"):
            try:
                self._announcements.hear_status(message.topic, message.payload, retained=message.retained)
            except WireError as error:
                self._warn(f"ignored {message.topic}: {error}")

    def _take_config(self, message: Message) -> None:
        if message.retained:
            self._announcements.hear_kept(message.topic, message.payload, time.monotonic())
        elif self._unconfirmed.get(message.topic, (b"", 0.0))[0] == message.payload:
            self._unconfirmed.pop(message.topic, None)

    def _publish(self, now_s: float) -> None:
        for topic, payload in self._announcements.due(now_s).items():
            try:
                self.connection.publish(topic, payload, qos=1, retain=True)
            except LinkError as error:
                logger.debug("%s waits: %s", topic, error)  # the connection says what is wrong with it
                return
            self._announcements.published(topic, payload)
            self._unconfirmed[topic] = (payload, now_s)
        overdue = [topic for topic, (_, sent_s) in self._unconfirmed.items() if now_s - sent_s >= _ECHO_S]
        for topic in overdue:
            del self._unconfirmed[topic]
        if overdue:
            self._warn(f"the broker did not take {overdue[0]}; may {self.settings.name} write it?")

    def _warn(self, text: str) -> None:
        if self._throttle.allows():
            logger.warning("%s", text)
