"""Which discovery messages are to be published, and when. In: status messages, births. Out: topics and payloads.

Pure: no sockets, and the time comes from outside.
"""

from __future__ import annotations

from schemas.home_assistant import Device, device_of, discovery, is_ours
from schemas.messages import AgentStatus, Presence, WorkerStatus, parse_message
from schemas.topics import Role, Topics

# A broker tells all that it has kept at once. Only then is it clear whose status is missing.
_SETTLE_S = 2.0


class Announcements:
    """What each device was last announced with, and what waits to be published."""

    def __init__(self, topics: Topics, prefix: str) -> None:
        self._topics, self._prefix = topics, prefix
        self._wanted: dict[Device, bytes] = {}
        self._waiting: dict[str, bytes] = {}  # by topic: the newest alone counts
        self._kept: dict[str, bytes] = {}  # by topic: found at the broker, not looked at yet
        self._settled_at_s: float | None = None
        self._again_at_s: float | None = None

    def hear_status(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """The status of an agent or a worker. Raises WireError for one that breaks the rules.

        A retained one is what the broker tells after each connect: it may have lost what it kept, so the
        device is announced again. A live one is worth an announcement only where it changes it.
        """
        parsed = self._topics.parse(topic)
        if parsed.agent is not None:
            device = Device(Role.AGENT, parsed.agent)
        else:
            device = Device(Role.WORKER, parsed.worker or "")
        if not payload:
            self._forget(device)
            return
        kind: type[AgentStatus | WorkerStatus] = AgentStatus if device.role is Role.AGENT else WorkerStatus
        status = parse_message(kind, payload)
        known = self._wanted.get(device)
        # Who leaves may say less of itself than it did while it was there.
        config = (
            known if known and status.state is Presence.OFFLINE else discovery(self._topics, device, status)
        )
        if retained or config != known:
            self._wanted[device] = config
            self._waiting[device.config_topic(self._prefix)] = config

    def hear_kept(self, topic: str, payload: bytes, now_s: float) -> None:
        """A discovery message that the broker has kept; it goes where its device has no status any more."""
        self._kept[topic] = payload
        self._settled_at_s = now_s + _SETTLE_S

    def again(self, at_s: float) -> None:
        """Home Assistant has started: announce all devices once more, at that time."""
        self._again_at_s = at_s

    def due(self, now_s: float) -> dict[str, bytes]:
        """What is to be published now, by topic; an empty payload removes."""
        if self._settled_at_s is not None and now_s >= self._settled_at_s:
            self._settled_at_s = None
            self._remove_orphans()
        if self._again_at_s is not None and now_s >= self._again_at_s:
            self._again_at_s = None
            for device, config in self._wanted.items():
                self._waiting.setdefault(device.config_topic(self._prefix), config)
        return dict(self._waiting)

    def published(self, topic: str, payload: bytes) -> None:
        """This one is done with, unless something newer came up meanwhile."""
        if self._waiting.get(topic) == payload:
            del self._waiting[topic]

    def next_at_s(self, now_s: float) -> float | None:
        """When there will be something due; None: not before something is heard."""
        times = [at_s for at_s in (self._settled_at_s, self._again_at_s) if at_s is not None]
        return now_s if self._waiting else min(times, default=None)

    def _remove_orphans(self) -> None:
        for topic, payload in self._kept.items():
            device = device_of(self._prefix, topic)
            if device is not None and device not in self._wanted and is_ours(self._topics, device, payload):
                self._waiting[topic] = b""
        self._kept.clear()

    def _forget(self, device: Device) -> None:
        if self._wanted.pop(device, None) is not None:
            self._waiting[device.config_topic(self._prefix)] = b""
