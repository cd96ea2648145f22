"""The networks between board and broker, as data. Delays are round trips, half of them each way.

The broker and the workers stand in one place, so their own link is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.tcp_proxy import TcpProxy


@dataclass(frozen=True)
class Link:
    """A board's link: round trip in seconds, rates in bits a second (None: as fast as the machine)."""

    name: str
    round_trip_s: float
    up_bits_s: float | None
    down_bits_s: float | None

    def apply(self, proxy: TcpProxy) -> None:
        """Make a proxy behave so, for all that passes from now on."""
        for direction, bits_s in ((proxy.up, self.up_bits_s), (proxy.down, self.down_bits_s)):
            direction.delay_s = self.round_trip_s / 2
            direction.bytes_per_s = None if bits_s is None else bits_s / 8


# No delay: for what does not depend on the network.
LOOPBACK = Link("loopback", 0.0, None, None)

LINKS = (
    Link("LAN", 0.001, 100e6, 100e6),
    Link("Wi-Fi", 0.010, 20e6, 20e6),
    Link("LTE", 0.060, 5e6, 20e6),
    Link("NB-IoT", 0.300, 60e3, 60e3),
)
