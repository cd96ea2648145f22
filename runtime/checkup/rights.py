"""What a broker takes from a member that it has let in. In: a connection. Out: findings, round trips.

Nothing here is retained, and every topic that is written to is one that nobody reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.checkup.checks import Finding, failed, passed, warned
from runtime.mqtt import DEFAULT_MAX_PACKET_BYTES, Connection
from runtime.settings import BrokerSettings
from schemas.errors import LinkError, PayloadTooLarge

ANSWER_S = 3.0
# Around a payload there is the topic and little else.
_MAX_HEADER_BYTES = 1024


def check_access(
    link: Connection,
    settings: BrokerSettings,
    *,
    allowed: dict[str, tuple[str, bytes]],
    forbidden: dict[str, str],
    unread: str,
) -> Finding:
    """Whether the broker takes what this member may write, and nothing else.

    `allowed` is what it may write, with a payload that harms nobody, `forbidden` what it may not, both by a
    word for it; `unread` is a topic among the allowed ones that it may not read.
    """
    overheard = link.subscribe([(unread, 0)])
    for word, (topic, payload) in allowed.items():
        reason = link.publish_and_ask(topic, payload, ANSWER_S)
        if reason is not None:
            return failed(
                f"the broker does not take {word} from {settings.name} ({reason})",
                f"check topic_root ({settings.topic_root}) and the role of {settings.name} there",
            )
    leaks = [word for word, topic in forbidden.items() if _is_taken(link, topic)]
    if overheard.get(0.0) is not None:  # a broker hands on what came before it answers what came after
        leaks.append("read what is not for it")
    if leaks:
        return failed(
            f"the broker lets {settings.name} {' and '.join(leaks)}: it has no access list, or not this fleet's",
            "cloud-broker-worker broker init makes a broker that has one",
        )
    return passed(f"{settings.name} may write {', '.join(allowed)}, and nothing in another's name")


def check_packet_size(link: Connection, topic: str, payload: bytes, what: str) -> Finding:
    """Whether the broker takes the largest message of this member."""
    try:
        link.check_size(topic, payload)
    except PayloadTooLarge as error:
        figures = {"needed_bytes": error.size_bytes, "allowed_bytes": error.max_bytes}
        if error.max_bytes > DEFAULT_MAX_PACKET_BYTES - _MAX_HEADER_BYTES:
            return passed(
                f"{what} may have {error.size_bytes:,} bytes; the answers to prompts that do not compress "
                f"below {DEFAULT_MAX_PACKET_BYTES:,} will be unverified",
                **figures,
            )
        return warned(
            f"the broker takes {error.max_bytes:,} bytes, {what} may have {error.size_bytes:,}",
            f"raise max_packet_size at the broker to {DEFAULT_MAX_PACKET_BYTES}, or lower n_ctx",
            **figures,
        )
    return passed(f"the broker takes {what}, up to {len(payload):,} bytes", needed_bytes=len(payload))


def round_trip_ms(
    send: Callable[[], None], hear: Callable[[float], object | None], count: int
) -> list[float]:
    """How long each of `count` messages takes to come back; shorter where some do not."""
    took_ms = []
    for _ in range(count):
        started_s = time.monotonic()
        send()
        if hear(ANSWER_S) is None:
            break
        took_ms.append((time.monotonic() - started_s) * 1000)
    return took_ms


def _is_taken(link: Connection, topic: str) -> bool:
    """Whether the broker takes a message that it must refuse; some end the connection instead."""
    try:
        return link.publish_and_ask(topic, b"", ANSWER_S) is None
    except LinkError:
        link.wait_connected(ANSWER_S)
        return False
