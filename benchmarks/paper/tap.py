"""Counts what boards ask, at the broker. In: drafts of all agents. Out: bytes of payload, MQTT's own left out."""

from __future__ import annotations

from typing import Self

from runtime.mqtt import BrokerAddress, Connection
from schemas.topics import Topics

_CONNECT_TIMEOUT_S = 10.0
# What is under way from the broker to us when an answer ends arrives within this time.
_SETTLED_S = 0.2
_MAX_QUEUED = 65_536


class Tap:
    """An operator that overhears the drafts for some workers. Use as a context manager."""

    def __init__(self, address: BrokerAddress, topics: Topics, workers: tuple[str, ...]) -> None:
        self._connection = Connection(address)
        filters = [(topics.drafts_for(worker), 0) for worker in workers]
        self._inbox = self._connection.subscribe(filters, max_queued=_MAX_QUEUED)

    def __enter__(self) -> Self:
        self._connection.start()
        self._connection.expect_connected(_CONNECT_TIMEOUT_S)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._connection.stop()

    def payload_bytes(self) -> int:
        """Bytes since the last call, once nothing more comes."""
        total = 0
        while (message := self._inbox.get(_SETTLED_S)) is not None:
            total += len(message.payload)
        return total
