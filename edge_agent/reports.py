"""When operators are told what answers came to. In: answers, bytes of the socket. Out: a report, now and then. Pure.

A report after each answer would cost half of what the answer itself does (docs/adr/0011-telemetry-has-a-budget.md).
So answers are summed up until a report is a small part of what has crossed the socket since the start.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from edge_agent.round_trips import RoundTrips
from schemas.messages import Usage

# Of all bytes on the socket, both directions, at most this share may tell operators how an agent fares.
MAX_SHARE = 0.02
# Room that is left for a report, its topic included; measured: 260 to 330. Where one was longer, that of the longest.
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
        self._spent_bytes, self._report_bytes = 0, _REPORT_BYTES
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
        return spent + self._report_bytes <= MAX_SHARE * socket_bytes

    @property
    def usage(self) -> Usage:
        """What the answers since the last report came to together, without digits that mean nothing."""
        trips = RoundTrips(list(self._trips_s))
        rounded = {
            "seconds": round(self._sum.seconds, 3),
            "divergence": _rounded(self._sum.divergence, 6),
            "divergence_margin": _rounded(self._sum.divergence_margin, 6),
            "round_trip_median_ms": _rounded(trips.median_ms, 2),
            "round_trip_p99_ms": _rounded(trips.p99_ms, 2),
        }
        return self._sum.model_copy(update=rounded)

    def charge(self, topic: str, payload: bytes) -> None:
        """Count a message that tells operators something."""
        self._spent_bytes += message_bytes(topic, payload)

    def told(self, topic: str, payload: bytes) -> None:
        """The report is out: count it, and start to sum up anew."""
        self.charge(topic, payload)
        self._report_bytes = max(self._report_bytes, message_bytes(topic, payload))
        self._told_at_s = self._clock()
        self._start()


def message_bytes(topic: str, payload: bytes) -> int:
    """Bytes of one message on the wire, TLS left out; rather too many than too few."""
    return len(topic) + len(payload) + _FRAMING_BYTES


def added(one: Usage, other: Usage) -> Usage:
    """The usage of both together, but for the round trips; what is not known of one is not known of both.

    The divergence is the mean over the judged tokens of both, and its margin that of independent parts.
    """
    counts = ("prompt_tokens", "tokens", "skipped", "accepted", "recovered", "bonus", "unverified", "audited")
    judged = one.num_judged + other.num_judged
    loss = sum(each.num_judged * (each.divergence or 0.0) for each in (one, other))
    margin = math.hypot(*(each.num_judged * (each.divergence_margin or 0.0) for each in (one, other)))
    return Usage(
        **{name: getattr(one, name) + getattr(other, name) for name in counts},
        seconds=one.seconds + other.seconds,
        bytes_up=_sum_of_known(one.bytes_up, other.bytes_up),
        bytes_down=_sum_of_known(one.bytes_down, other.bytes_down),
        divergence=loss / judged if judged else None,
        divergence_margin=margin / judged if judged else None,
    )


def _sum_of_known(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
