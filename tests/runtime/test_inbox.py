"""The inbox: order, bounds and waiting, without a network."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from runtime.inbox import Inbox, Message


def message(payload: bytes, topic: str = "t") -> Message:
    return Message(topic, payload, retained=False, received_at=0.0)


def test_messages_come_out_in_the_order_they_came_in():
    inbox = Inbox(("t",), 10)
    for payload in (b"1", b"2", b"3"):
        inbox.put(message(payload))
    first = inbox.get(0)
    assert first is not None
    assert first.payload == b"1"
    assert [m.payload for m in inbox.drain()] == [b"2", b"3"]
    assert inbox.drain() == []


def test_a_full_inbox_drops_the_oldest_and_says_so_once(caplog):
    inbox = Inbox(("a/+", "b/#"), 3)
    with caplog.at_level(logging.WARNING):
        for number in range(10):
            inbox.put(message(bytes([number])))
    assert [m.payload[0] for m in inbox.drain()] == [7, 8, 9]
    assert inbox.num_dropped == 7
    [record] = caplog.records
    assert "a/+, b/#" in record.getMessage()
    assert "the oldest are dropped" in record.getMessage()


def test_waiting_ends_with_none_when_the_time_is_over():
    start = time.monotonic()
    assert Inbox(("t",), 3).get(0.05) is None
    assert time.monotonic() - start >= 0.05


def call_after_waiting_began(inbox: Inbox, action) -> float:
    """How long a `get` without end took that `action` ended, from another thread, once it was waiting."""
    timer = threading.Timer(0.05, action)
    timer.start()
    start = time.monotonic()
    inbox.get(None)
    timer.join()
    return time.monotonic() - start


def test_a_message_ends_the_waiting():
    inbox = Inbox(("t",), 3)
    assert call_after_waiting_began(inbox, lambda: inbox.put(message(b"x"))) < 5.0


def test_wake_ends_the_waiting_once():
    inbox = Inbox(("t",), 3)
    assert call_after_waiting_began(inbox, inbox.wake) < 5.0
    start = time.monotonic()
    assert inbox.get(0.05) is None
    assert time.monotonic() - start >= 0.05


def test_wake_before_the_waiting_is_not_lost():
    inbox = Inbox(("t",), 3)
    inbox.wake()
    assert inbox.get(None) is None


def test_close_ends_the_waiting_for_good_but_loses_nothing():
    inbox = Inbox(("t",), 3)
    inbox.put(message(b"x"))
    inbox.close()
    inbox.put(message(b"too late"))
    last = inbox.get(None)
    assert last is not None
    assert last.payload == b"x"
    assert inbox.get(None) is None
    assert inbox.get(None) is None
    assert inbox.closed


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b", "a", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a/b/c", True),
        ("+/+", "a/b", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "b/c", False),
        ("#", "a/b", True),
        ("a/+", "a/", True),
    ],
)
def test_filters_match_as_mqtt_says(topic_filter, topic, expected):
    assert Inbox((topic_filter,), 1).matches(topic.split("/")) is expected
