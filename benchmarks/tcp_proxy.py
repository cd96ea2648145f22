"""A TCP proxy that makes a network bad on purpose. In: a port to forward to. Out: a port to connect to.

One thread forwards all connections. A chunk is sent on when it is due, while later chunks already come in:
a delay costs time, not throughput. A rate is kept as a serial line would, one byte after the other.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

# Small enough that a slow line delivers smoothly, as Ethernet would; only used where a rate is set.
_SEGMENT_BYTES = 1460
_CHUNK_BYTES = 65_536
# What a direction holds back before the sender is made to wait; a delayed fast line needs some megabytes.
_MAX_QUEUED_BYTES = 4_194_304


@dataclass
class Direction:
    """The state of the network one way, for all connections; may be changed at any time."""

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    num_bytes: int = 0  # received from the sending side so far


@dataclass
class _Pipe:
    """One way of one connection."""

    source: socket.socket
    sink: socket.socket
    direction: Direction
    chunks: deque[tuple[float, bytes]] = field(default_factory=deque)  # (due, bytes)
    num_queued: int = 0
    line_free_at: float = 0.0
    ended: bool = False  # the source has said its last
    closed: bool = False  # and the sink was told

    def wants_input(self) -> bool:
        return not self.ended and self.num_queued < _MAX_QUEUED_BYTES

    def read(self, now: float) -> None:
        limited = self.direction.bytes_per_s is not None
        data = self.source.recv(_SEGMENT_BYTES if limited else _CHUNK_BYTES)
        self.ended = not data
        self.direction.num_bytes += len(data)
        self.num_queued += len(data)
        line_s = len(data) / self.direction.bytes_per_s if self.direction.bytes_per_s else 0.0
        self.line_free_at = max(now, self.line_free_at) + line_s
        if data:
            self.chunks.append((self.line_free_at + self.direction.delay_s, data))

    def write(self, now: float) -> None:
        while self.chunks and self.chunks[0][0] <= now:
            due, data = self.chunks.popleft()
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.num_queued -= sent
            if sent < len(data):
                self.chunks.appendleft((due, data[sent:]))
                return
        if self.ended and not self.chunks and not self.closed:
            self.sink.shutdown(socket.SHUT_WR)
            self.closed = True


class TcpProxy:
    """Forwards `port` on loopback to a target; a context manager. `up` is towards the target."""

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self.up = Direction()
        self.down = Direction()
        self._target = (target_host, target_port)
        self._pipes: list[_Pipe] = []
        self._stalled = False
        self._running = True
        self._commands: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._waker, self._wakened = socket.socketpair()
        self._listener: socket.socket | None = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._do(self._shut)
        self._thread.join()
        self._waker.close()
        self._wakened.close()

    @property
    def num_connections(self) -> int:
        """How many are open now."""
        return len(self._pipes) // 2

    def set_network(self, *, delay_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        """The same delay and rate both ways."""
        for direction in (self.up, self.down):
            direction.delay_s, direction.bytes_per_s = delay_s, bytes_per_s

    def cut(self) -> None:
        """End all connections with a reset, as a router that restarts would; what is under way is lost."""
        self._do(self._reset_all)

    def refuse(self) -> None:
        """Refuse new connections from now on."""
        self._do(self._close_listener)

    def accept(self) -> None:
        """Take new connections again."""
        self._do(self._open_listener)

    def stall(self) -> None:
        """Forward nothing and tell nobody, as a dead radio link does."""
        self._do(lambda: setattr(self, "_stalled", True))

    def resume(self) -> None:
        """Forward again, what has been held back first."""
        self._do(lambda: setattr(self, "_stalled", False))

    def _do(self, command: Callable[[], None]) -> None:
        """Run a command in the proxy's thread, which owns the sockets, and wait until it is done."""
        done = threading.Event()
        self._commands.put((command, done))
        self._waker.send(b"!")
        if not done.wait(10.0):
            raise TimeoutError("the proxy's thread does not answer")

    def _run(self) -> None:
        while self._running:
            now = time.monotonic()
            for pipe in list(self._pipes):
                self._guarded(pipe, pipe.write, now)
            self._forget_closed()
            readable = self._wait()
            now = time.monotonic()
            for pipe in list(self._pipes):
                if pipe.source in readable:
                    self._guarded(pipe, pipe.read, now)
            if self._listener in readable:
                self._accept_one()
            if self._wakened in readable:
                self._obey()

    def _wait(self) -> list[socket.socket]:
        """Sleep until something comes in, something is due or a full sink has room again.

        select, not epoll: epoll rounds the time up to whole milliseconds.
        """
        inputs = [self._wakened]
        if self._listener is not None:
            inputs.append(self._listener)
        if self._stalled:
            return select.select(inputs, [], [])[0]
        inputs += [pipe.source for pipe in self._pipes if pipe.wants_input()]
        now = time.monotonic()
        blocked = [pipe.sink for pipe in self._pipes if pipe.chunks and pipe.chunks[0][0] <= now]
        dues = [pipe.chunks[0][0] for pipe in self._pipes if pipe.chunks and pipe.chunks[0][0] > now]
        timeout_s = min(dues) - now if dues else None
        return select.select(inputs, blocked, [], timeout_s)[0]

    def _guarded(self, pipe: _Pipe, step: Callable[[float], None], now: float) -> None:
        if self._stalled or pipe not in self._pipes:
            return
        try:
            step(now)
        except OSError:  # one side has reset the connection: so do we to the other
            self._reset([pipe.source, pipe.sink])

    def _accept_one(self) -> None:
        assert self._listener is not None
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target, timeout=5.0)
        except OSError:
            self._reset([near])
            return
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pipes += [_Pipe(near, far, self.up), _Pipe(far, near, self.down)]

    def _obey(self) -> None:
        self._wakened.recv(4096)
        with contextlib.suppress(queue.Empty):
            while True:
                command, done = self._commands.get_nowait()
                command()
                done.set()

    def _forget_closed(self) -> None:
        for pipe in self._pipes[::2]:
            pair = [p for p in self._pipes if pipe.source in (p.source, p.sink)]
            if all(p.closed for p in pair):
                self._close([pipe.source, pipe.sink])

    def _reset_all(self) -> None:
        self._reset([pipe.source for pipe in self._pipes])

    def _reset(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            # Lingering for 0 s makes close() send a reset in place of an orderly end.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(sockets)

    def _close(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            sock.close()
        self._pipes = [p for p in self._pipes if p.source not in sockets and p.sink not in sockets]

    def _listen(self, port: int) -> socket.socket:
        return socket.create_server(("127.0.0.1", port))

    def _open_listener(self) -> None:
        if self._listener is None:
            self._listener = self._listen(self.port)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _shut(self) -> None:
        self._running = False
        self._close_listener()
        self._reset_all()
