"""What both ends measure of their connection to the broker. In: a connection. Out: readings."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.measurements import Kind, Metric, Reading
from runtime.mqtt import Connection


class LinkMetrics:
    """The metrics of one end; `prefix` is what their names begin with."""

    def __init__(self, prefix: str) -> None:
        self.connected = Metric(
            f"{prefix}_connected", Kind.GAUGE, "1 while the broker has accepted the connection, else 0"
        )
        self.connects = Metric(
            f"{prefix}_connects_total", Kind.COUNTER, "connections that the broker has accepted"
        )
        self.bytes = Metric(
            f"{prefix}_socket_bytes_total",
            Kind.COUNTER,
            "bytes on the socket to the broker, MQTT and TLS included; absent where the system cannot tell",
            ("direction",),
        )
        self.dropped = Metric(
            f"{prefix}_inbox_dropped_total", Kind.COUNTER, "messages dropped because they came too fast"
        )
        self.all = (self.connected, self.connects, self.bytes, self.dropped)

    def read(self, connection: Connection) -> Iterator[Reading]:
        """The values now."""
        yield Reading(self.connected, int(connection.connected))
        yield Reading(self.connects, connection.num_connects)
        sizes = (("sent", connection.bytes_sent), ("received", connection.bytes_received))
        for direction, num_bytes in sizes:
            if num_bytes is not None:
                yield Reading(self.bytes, num_bytes, (direction,))
        yield Reading(self.dropped, connection.num_dropped)
