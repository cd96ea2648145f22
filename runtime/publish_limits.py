"""What one connection may publish: sizes and aliases. In: what the CONNACK said. Out: yes, no, an alias."""

from __future__ import annotations

from runtime.topic_alias import TopicAliases
from schemas.errors import PayloadTooLarge

# More aliases than this are not worth the memory at the broker: an agent uses one for each worker it has met.
_MAX_ALIASES = 16


class PublishLimits:
    """The bounds of the present connection: ours until the first CONNACK, the tighter of both after it."""

    def __init__(self, max_packet_bytes: int) -> None:
        self._our_max_packet_bytes = max_packet_bytes
        self._max_packet_bytes = max_packet_bytes
        self.aliases = TopicAliases(0)

    def accept(self, max_packet_bytes: int | None, max_aliases: int) -> None:
        """Take over what a CONNACK allows (None: any size), and forget all aliases, as the broker has."""
        ours = self._our_max_packet_bytes
        self._max_packet_bytes = ours if max_packet_bytes is None else min(ours, max_packet_bytes)
        self.aliases = TopicAliases(min(_MAX_ALIASES, max_aliases))

    def check(self, topic: str, payload: bytes, qos: int) -> None:
        """Raise PayloadTooLarge for what the broker would not take, ValueError for what is no topic.

        An oversized QoS 1 message must never reach paho: the broker ends the connection, and paho would send
        it again on the next one, for ever.
        """
        if not topic or "+" in topic or "#" in topic:
            raise ValueError(f"{topic!r} is not a topic to publish to")
        max_payload_bytes = self._max_packet_bytes - _overhead_bytes(topic, qos)
        if len(payload) > max_payload_bytes:
            raise PayloadTooLarge(topic, len(payload), max_payload_bytes)


def _overhead_bytes(topic: str, qos: int) -> int:
    """The most bytes of a PUBLISH around its payload (MQTT 5 section 3.3).

    Packet type 1, remaining length up to 4, topic 2 + n, packet id 2 with QoS 1, properties 1 + 3 (an alias).
    """
    return 1 + 4 + 2 + len(topic.encode()) + (2 if qos else 0) + 1 + 3
