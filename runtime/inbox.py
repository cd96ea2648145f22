"""What the network thread hands to an owner. In: messages, from any thread. Out: the same, in order."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass

from runtime.log_throttle import LogThrottle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """One message as it came in. `received_at` is time.monotonic().

    `retained` means that the broker had kept it from before the subscription: it tells what was, not what
    has just happened. A live message is never `retained`, even where the broker keeps it for others.
    """

    topic: str
    payload: bytes
    retained: bool
    received_at: float


class Inbox:
    """A bounded queue of the messages that match `filters`. A full one drops its oldest message, visibly.

    The oldest goes because drafts, verdicts and status lose their worth with age. One owner reads; any thread
    may put, wake or close. To wait for several kinds of topic, subscribe one inbox with several filters.
    """

    def __init__(self, filters: tuple[str, ...], max_queued: int) -> None:
        self.filters = filters
        self.num_dropped = 0
        self._levels = tuple(topic_filter.split("/") for topic_filter in filters)
        self._max_queued = max_queued
        self._messages: deque[Message] = deque()
        self._changed = threading.Condition()
        self._woken = False
        self._closed = False
        self._throttle = LogThrottle()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def get(self, timeout_s: float | None) -> Message | None:
        """The oldest message, waiting up to `timeout_s` for one (None: without end).

        None means that no message came in that time, or that `wake` or `close` was called.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._woken or self._closed, timeout_s)
            self._woken = False
            return self._messages.popleft() if self._messages else None

    def drain(self) -> list[Message]:
        """All messages that are here now, oldest first, without waiting."""
        with self._changed:
            messages = list(self._messages)
            self._messages.clear()
            return messages

    def wake(self) -> None:
        """Let the owner's present or next `get` return at once."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """From now on nothing comes in; `get` empties the queue and then returns None at once, always."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def matches(self, topic_levels: list[str]) -> bool:
        """Whether a topic, split at '/', matches one of the filters."""
        return any(_matches(levels, topic_levels) for levels in self._levels)

    def put(self, message: Message) -> None:
        """Append a message; called by the network thread, never blocks on the owner."""
        with self._changed:
            if self._closed:
                return
            if len(self._messages) >= self._max_queued:
                self._messages.popleft()
                self.num_dropped += 1
            self._messages.append(message)
            num_dropped = self.num_dropped
            self._changed.notify()
        if num_dropped and len(self._messages) >= self._max_queued and self._throttle.allows():
            logger.warning(
                "the inbox for %s is full (%d messages): the oldest are dropped, %d so far",
                ", ".join(self.filters),
                self._max_queued,
                num_dropped,
            )


def _matches(levels: list[str], topic_levels: list[str]) -> bool:
    """MQTT 5 section 4.7. The rule about topics that begin with '$' is left to the broker."""
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(topic_levels) or level not in ("+", topic_levels[index]):
            return False
    return len(levels) == len(topic_levels)
