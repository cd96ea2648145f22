"""When operators are told what answers came to. In: answers, bytes of the socket. Out: a report, now and then. Pure.

A report after each answer would cost half of what the answer itself does (docs/adr/0011-telemetry-has-a-budget.md).
So answers are summed up until a report is a small part of what has crossed the socket since the start.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from edge_agent.usage import added, with_round_trips
from schemas.messages import Usage

# Of all bytes on the socket, both directions, at most this share may tell operators how an agent fares.
MAX_SHARE = 0.02
# What a report may take, its topic included; measured: 260 to 330.
_REPORT_BYTES = 400
# What MQTT adds to topic and payload at most: fixed header 3, length of the topic 2, packet id 2, properties 4.
_FRAMING_BYTES = 11
# Where the system does not count bytes, a report goes out this often.
_BEAT_S = 60.0
# Round trips that a report's percentiles are over.
_MAX_TRIPS = 4096


class Reports:
    """Sums up the answers that are not reported yet, and keeps telemetry within its share of the bytes.

    `connect_bytes` is what each connection costs in will and status before anything was answered.
    """

    def __init__(self, connect_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._connect_bytes, self._clock = connect_bytes, clock
        self._spent_bytes = 0
        self._told_at_s = clock()
        self._start()

    def _start(self) -> None:
        self.num_answers = 0
        self._sum = Usage()
        self._trips_s = deque[float](maxlen=_MAX_TRIPS)

    def add(self, usage: Usage, round_trips_s: list[float]) -> None:
        """Enter an answer that has ended."""
        self._sum = usage if self.num_answers == 0 else added(self._sum, usage)
        self.num_answers += 1
        self._trips_s.extend(round_trips_s)

    def is_due(self, socket_bytes: int | None, num_connects: int) -> bool:
        """Whether the next report keeps telemetry within its share."""
        if socket_bytes is None:
            return self._clock() - self._told_at_s >= _BEAT_S
        spent = self._spent_bytes + num_connects * self._connect_bytes
        return spent + _REPORT_BYTES <= MAX_SHARE * socket_bytes

    @property
    def usage(self) -> Usage:
        """What the answers since the last report came to together, without digits that mean nothing."""
        usage = with_round_trips(self._sum, list(self._trips_s))
        digits = {"seconds": 3, "round_trip_median_ms": 2, "round_trip_p99_ms": 2, "divergence": 6}
        values = {name: getattr(usage, name) for name in digits}
        return usage.model_copy(
            update={name: round(value, digits[name]) for name, value in values.items() if value is not None}
        )

    def charge(self, topic: str, payload: bytes) -> None:
        """Count a message that tells operators something."""
        self._spent_bytes += message_bytes(topic, payload)

    def told(self, topic: str, payload: bytes) -> None:
        """The report is out: count it, and start to sum up anew."""
        self.charge(topic, payload)
        self._told_at_s = self._clock()
        self._start()


def message_bytes(topic: str, payload: bytes) -> int:
    """Bytes of one message on the wire, TLS left out; rather too many than too few."""
    return len(topic) + len(payload) + _FRAMING_BYTES
