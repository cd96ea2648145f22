"""Takes a fleet out of Home Assistant. In: the discovery messages that the broker keeps. Out: their removal."""

from __future__ import annotations

import time

from cloud_broker_worker.home_assistant.settings import PurgeSettings
from runtime.mqtt import Connection, Inbox
from schemas.errors import ConfigurationError
from schemas.home_assistant import Device, config_filter, device_of, is_ours

# Nothing says that a broker has told all that it keeps, but it tells it in one go.
_QUIET_S = 1.0
_GONE_S = 5.0
_AT_ONCE = 32  # a connection holds twice as many without an acknowledgement
_MAX_QUEUED = 16_384


def purge(settings: PurgeSettings) -> list[Device]:
    """Remove every device of this root. Returns which; raises LinkError or ConfigurationError in one line."""
    connection = Connection(settings.broker_address())
    inbox = connection.subscribe([(config_filter(settings.prefix), 1)], max_queued=_MAX_QUEUED)
    connection.start()
    try:
        connection.expect_connected(settings.connect_timeout_s)
        found = _find(inbox, settings)
        for start in range(0, len(found), _AT_ONCE):
            topics = list(found)[start : start + _AT_ONCE]
            for topic in topics:
                connection.publish(topic, b"", qos=1, retain=True)
            _wait_until_gone(inbox, set(topics), settings)
    finally:
        connection.stop()
    return sorted(found.values(), key=lambda device: device.object_id)


def _find(inbox: Inbox, settings: PurgeSettings) -> dict[str, Device]:
    """Our devices, by discovery topic."""
    found = {}
    while (message := inbox.get(_QUIET_S)) is not None:
        device = device_of(settings.prefix, message.topic)
        if device is not None and is_ours(settings.topics, device, message.payload):
            found[message.topic] = device
    return found


def _wait_until_gone(inbox: Inbox, topics: set[str], settings: PurgeSettings) -> None:
    """Wait for the broker to send the removals back to us: what it does not take, it does not send either."""
    deadline_s = time.monotonic() + _GONE_S
    while topics:
        message = inbox.get(max(0.0, deadline_s - time.monotonic()))
        if message is None:
            raise ConfigurationError(
                f"{len(topics)} devices are still there, such as {min(topics)}; may {settings.name} write it?"
            )
        if not message.payload:
            topics.discard(message.topic)
