"""Bytes that really crossed the network. In: connected sockets. Out: bytes sent and received, TLS included.

Read from the kernel's TCP_INFO (struct tcp_info in linux/tcp.h), so what a library frames, batches or
encrypts on the way is counted without trusting it. IP and TCP headers are not counted, nor retransmissions.
"""

from __future__ import annotations

import socket
import struct
import threading

# Offsets in struct tcp_info: 8 u8; 24 u32 (up to 104); u64 pacing_rate, max_pacing_rate, bytes_acked,
# bytes_received (128); u32 segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
# u64 delivery_rate, busy_time, rwnd_limited, sndbuf_limited; u32 delivered, delivered_ce;
# u64 bytes_sent (200), bytes_retrans (208). Linux has bytes_sent since 4.19; older ones answer with less.
_BYTES_RECEIVED_OFFSET = 128
_BYTES_SENT_OFFSET = 200
_TCP_INFO_BYTES = 216
_TCP_CLOSE_WAIT = 8


class SocketBytes:
    """Adds up the bytes of one socket after another. Safe to read while another thread changes sockets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._sent = 0
        self._received = 0
        self._unknown = False

    def open(self, sock: socket.socket) -> None:
        """Start to count a connected socket."""
        with self._lock:
            self._socket = sock

    def close(self) -> None:
        """Keep the present socket's count; call it just before the socket is closed."""
        with self._lock:
            if self._socket is not None:
                self._sent, self._received = self._totals()
                self._socket = None

    @property
    def sent(self) -> int | None:
        """Bytes sent so far; None where the system cannot tell."""
        with self._lock:
            sent, _ = self._totals()
            return None if self._unknown else sent

    @property
    def received(self) -> int | None:
        """Bytes received so far; None where the system cannot tell."""
        with self._lock:
            _, received = self._totals()
            return None if self._unknown else received

    def _totals(self) -> tuple[int, int]:
        if self._socket is None:
            return self._sent, self._received
        counts = read_tcp_info(self._socket)
        if counts is None:
            self._unknown = True
            return self._sent, self._received
        return self._sent + counts[0], self._received + counts[1]


def read_tcp_info(sock: socket.socket) -> tuple[int, int] | None:
    """Payload bytes that one TCP socket has (sent, received); None where TCP_INFO lacks them."""
    option = getattr(socket, "TCP_INFO", None)  # absent outside Linux
    if option is None:
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, option, 256)
    if len(info) < _TCP_INFO_BYTES:
        return None
    (received,) = struct.unpack_from("=Q", info, _BYTES_RECEIVED_OFFSET)
    sent, retransmitted = struct.unpack_from("=QQ", info, _BYTES_SENT_OFFSET)
    # The peer's FIN takes a place in the sequence numbers, so Linux counts it as one received byte.
    fin = 1 if info[0] == _TCP_CLOSE_WAIT else 0
    return sent - retransmitted, received - fin
