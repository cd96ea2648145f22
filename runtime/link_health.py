"""Why there is no connection, and when to try again. In: what happened to it. Out: one line, a delay."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from runtime.backoff import Backoff
from runtime.link import (
    BrokerAddress,
    describe_contest,
    describe_failure,
    describe_goodbye,
    describe_loss,
    describe_refusal,
)

logger = logging.getLogger(__name__)

# A connection that lived this long was a working one: the next failure starts from the shortest delay again.
# Below it, two processes that take over each other's name would do so several times a second.
STABLE_S = 5.0
# So many short-lived connections in a row are no accident. Mosquitto 2.0 does not say "session taken over".
_CONTESTED = 3


class LinkHealth:
    """The history of one connection. Each distinct trouble is logged once until the link is stable again."""

    def __init__(
        self, address: BrokerAddress, backoff: Backoff, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.last_error: str | None = None  # None while connected
        self.num_accepted = 0
        self._address = address
        self._backoff = backoff
        self._clock = clock
        self._accepted_at: float | None = None
        self._refused = False
        self._num_short_lived = 0
        self._logged: set[str] = set()

    def accepted(self) -> None:
        """The broker has said yes."""
        self.num_accepted += 1
        self.last_error = None
        self._refused = False
        self._accepted_at = self._clock()
        logger.info("connected to broker %s as %s", self._address, self._address.asker)

    def refused(self, code: int, reason: str) -> None:
        """The broker has said no, in its CONNACK; `ended` follows."""
        self._refused = True
        self._report(describe_refusal(self._address, code, reason))

    def failed(self, error: BaseException | None) -> float:
        """No connection could be opened. Returns the seconds to wait before the next try."""
        self._report(describe_failure(self._address, error))
        return self._backoff.next_delay_s()

    def ended(self, goodbye: tuple[int, str] | None) -> float:
        """A connection ended, with the broker's code and reason or without. Returns the seconds to wait."""
        accepted_at, self._accepted_at = self._accepted_at, None
        if accepted_at is not None:
            self._judge_life(self._clock() - accepted_at)
        if goodbye is not None:
            self._report(describe_goodbye(self._address, *goodbye))
        elif accepted_at is not None and self._num_short_lived >= _CONTESTED:
            self._report(describe_contest(self._address))
        elif not self._refused:
            self._report(describe_loss(self._address, was_connected=accepted_at is not None))
        self._refused = False
        return self._backoff.next_delay_s()

    def _judge_life(self, lived_s: float) -> None:
        if lived_s < STABLE_S:
            self._num_short_lived += 1
            return
        self._num_short_lived = 0
        self._backoff.reset()
        self._logged.clear()

    def _report(self, line: str) -> None:
        self.last_error = line
        if line not in self._logged:
            self._logged.add(line)
            logger.warning("%s", line)
