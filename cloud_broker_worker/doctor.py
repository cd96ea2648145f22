"""`cloud-broker-worker doctor`: all that a worker needs, looked at one by one. In: settings. Out: findings.

It is a guest: it takes no name that a running worker holds, retains nothing, and says nothing to any agent.
"""

from __future__ import annotations

import functools
import statistics
import time
from pathlib import Path

from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.worker import checked_profile, context_options
from runtime.checkup.checks import Check, Finding, failed, passed, warned
from runtime.checkup.doctor import Doctor
from runtime.checkup.rights import check_access, round_trip_ms
from schemas.errors import WireError
from schemas.messages import AgentStatus, Presence, parse_message

_NUM_ECHOES = 5
# Without TCP_NODELAY a message waits for the acknowledgement of the one before, which Linux delays by 40 ms.
_NODELAY_MS = 35.0
# Retained messages follow the subscription at once; that there are no more is said by silence alone.
_RETAINED_WAIT_S = 0.25
_AGENTS_S = 2.0


class WorkerDoctor(Doctor):
    """The checks of one worker, in order. Use as a context manager."""

    def __init__(self, settings: WorkerSettings, config: Path | None) -> None:
        super().__init__(settings, config, lambda model: context_options(settings, model), chats=False)
        self.settings = settings

    def checks(self) -> list[Check]:
        """What is looked at, in this order (docs/doctor.md)."""
        return [
            *self.checks_of_machine(),
            Check("profile", self._check_profile, ("model",)),
            *self.checks_of_broker(),
            Check("echo", self._check_echo, ("login",)),
            Check("agents", self._check_agents, ("login",)),
        ]

    def _check_profile(self) -> Finding:
        """Whether the profile that the worker publishes is for its model."""
        profile = checked_profile(self.settings.profile, self._model.name, self._vocabulary)
        if profile is None:
            return passed("none to publish")
        return passed(f"{profile.id}, for the draft model {profile.pair.draft}")

    def _check_access(self) -> Finding:
        """A worker writes verdicts, its own status and profiles, and reads no verdicts."""
        nobody = self.broker.nobody
        verdict = self.topics.verdict(nobody)
        return check_access(
            self.broker.link,
            self.settings,
            allowed={"verdicts": (verdict, b"")},
            forbidden={
                "write in an agent's name": self.topics.agent_metrics(nobody),
                "write in another worker's name": self.topics.worker_metrics(nobody),
            },
            unread=verdict,
        )

    def _opening_topic(self) -> str:
        return self.topics.open(self.broker.nobody, self.settings.name)

    def _check_echo(self) -> Finding:
        """How long a message takes to the broker and back, by the only topic that a worker writes and reads."""
        topic = self.topics.profile(self.broker.nobody)
        inbox = self.broker.link.subscribe([(topic, 0)])
        send = functools.partial(self.broker.link.publish, topic, b"")
        took_ms = round_trip_ms(send, inbox.get, _NUM_ECHOES)
        if not took_ms:
            return failed(
                f"what {self.settings.name} writes to a topic that it may read does not come back",
                f"check topic_root ({self.settings.topic_root}) and the role of {self.settings.name} there",
            )
        median = statistics.median(took_ms)
        found = f"{median:.1f} ms to the broker and back (median of {len(took_ms)})"
        nearest_ms = self.broker.connect_ms
        if nearest_ms is not None and median - nearest_ms > _NODELAY_MS:
            return warned(
                f"{found}, though a connection takes {nearest_ms:.1f} ms",
                "set set_tcp_nodelay true in mosquitto.conf, or look for what keeps the broker busy",
                median_ms=round(median, 3),
            )
        return passed(found, median_ms=round(median, 3))

    def _check_agents(self) -> Finding:
        """Who could ask. Workers do not see each other: the access list keeps their status for agents."""
        inbox = self.broker.link.subscribe([(self.topics.all_agent_status(), 1)])
        online: dict[str, bool] = {}
        deadline_s = time.monotonic() + _AGENTS_S
        while time.monotonic() < deadline_s and (message := inbox.get(_RETAINED_WAIT_S)) is not None:
            try:
                agent = self.topics.parse(message.topic).agent
                status = parse_message(AgentStatus, message.payload)
            except WireError:
                continue
            online[str(agent)] = status.state is Presence.ONLINE
        names = sorted(name for name, is_online in online.items() if is_online)
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        return passed(f"{len(names)} online" + (f": {shown}" if names else ""), online=len(names))
