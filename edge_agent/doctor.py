"""`edge-agent doctor`: all that an agent needs, looked at one by one. In: settings. Out: findings.

It is a guest: it takes no name that a running agent holds, retains nothing, and asks a worker as any answer does.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from edge_agent.agent import context_options
from edge_agent.controller import DEFAULT_START
from edge_agent.profiles import ProfileShelf, check_draft, pair_in_use
from edge_agent.settings import AgentSettings, Mode
from edge_agent.trial import time_verdicts
from edge_agent.verifier import Verifier
from edge_agent.workers import WorkerDirectory
from runtime.checkup.checks import Check, Finding, failed, passed, skipped, warned
from runtime.checkup.doctor import Doctor
from runtime.checkup.rights import check_access
from runtime.content_digest import content_digest
from runtime.profile_file import read_profile
from schemas.messages import Completion, WorkerStatus
from schemas.profile import Profile

_WORKER_WAIT_S = 2.0
_PROFILE_WAIT_S = 0.25
# A worker that takes longer for one token is of no use, whatever the settings allow.
_VERDICT_WAIT_S = 5.0
_NUM_TRIPS = 5
_SLOW_MEND = (
    "raise verdict_timeout_s, or look for what is slow: the network, too few processors at the worker"
)
# A clock that is off by less does no harm; status messages travel for seconds at worst.
_CLOCKS_APART_S = 60


class AgentDoctor(Doctor):
    """The checks of one agent, in order. Use as a context manager."""

    def __init__(self, settings: AgentSettings, config: Path | None) -> None:
        super().__init__(settings, config, lambda model: context_options(settings, model), chats=True)
        self.settings = settings
        self._verifier: Verifier | None = None
        self._directory: WorkerDirectory | None = None
        self._note: str | None = None

    def __exit__(self, *error: object) -> None:
        # It refers to us, and would keep the connection's sockets until the next collection.
        self._verifier = None
        super().__exit__(*error)

    def checks(self) -> list[Check]:
        """What is looked at, in this order (docs/doctor.md)."""
        return [
            *self.checks_of_machine(),
            *self.checks_of_broker(),
            Check("worker", self._check_worker, ("login", "model")),
            Check("fingerprint", self._check_fingerprint, ("worker",)),
            Check("profile", self._check_profile, ("model",)),
            Check("round_trip", self._check_round_trip, ("fingerprint", "context")),
        ]

    def _check_access(self) -> Finding:
        """An agent writes under its own name only, and does not even read its own completions."""
        own, nobody = self.settings.name, self.broker.nobody
        completion = self.topics.completion(own, nobody)
        ended = Completion(index=0, finish_reason="stop").to_bytes()
        return check_access(
            self.broker.link,
            self.settings,
            allowed={"completions": (completion, ended)},
            forbidden={
                "write in another agent's name": self.topics.agent_metrics(nobody),
                "write verdicts": self.topics.verdict(nobody),
            },
            unread=completion,
        )

    def _opening_topic(self) -> str:
        return self.topics.open(self.settings.name, self.broker.nobody)

    def _check_worker(self) -> Finding:
        """Who is there to be asked."""
        if self.settings.mode is Mode.EDGE:
            return skipped("the mode is edge: nobody is asked")
        directory = self._directory = WorkerDirectory(self.settings.name, self._vocabulary)
        self._verifier = Verifier(
            self.broker.link,
            self.topics,
            self.settings.name,
            directory,
            verdict_timeout_s=min(self.settings.verdict_timeout_s, _VERDICT_WAIT_S),
            on_worker=self._hear_note,
        )
        self._verifier.wait_for_worker(_WORKER_WAIT_S)
        names = directory.online(time.monotonic())
        if not names:
            return failed(
                directory.why_none(time.monotonic()),
                "start one (cloud-broker-worker run), and see what cloud-broker-worker doctor says there",
            )
        statuses = {name: _status(directory, name) for name in names}
        found = ", ".join(_described(name, status) for name, status in statuses.items())
        ahead = [name for name, status in statuses.items() if _is_ahead(status)]
        if ahead:
            return warned(
                f"{found}; {', '.join(ahead)} started in the future: this clock is behind, or theirs is ahead",
                "set the clock (timedatectl)",
                workers=len(names),
            )
        if all(status.sessions >= status.max_sessions for status in statuses.values()):
            return warned(
                f"{found}; all full: who opens a session there ends another one",
                "raise max_sessions at the worker, or start another one",
                workers=len(names),
            )
        return passed(found, workers=len(names))

    def _check_fingerprint(self) -> Finding:
        """Whether the draft model and a target model mean the same by an id."""
        assert self._directory is not None  # the worker's check comes first
        now_s = time.monotonic()
        fitting = sorted(self._directory.ranked(now_s))
        if not fitting:
            found, _, mend = self._directory.why_none(now_s).rpartition("; ")
            return failed(found, mend)
        foreign = [name for name in self._directory.online(now_s) if name not in fitting]
        others = f", but not with {', '.join(foreign)}" if foreign else ""
        return passed(f"{self._vocabulary.fingerprint()}, shared with {', '.join(fitting)}{others}")

    def _check_profile(self) -> Finding:
        """Which profile tells what uncertainty means for this pair."""
        given, digest = self.settings.profile, content_digest(self.settings.model)
        pair = None
        if self._directory is not None:
            pair = pair_in_use(self._directory, self._model.name, digest, self._vocabulary)
        profile: Profile | None = None
        if given is not None:
            profile = read_profile(given)
            check_draft(profile, str(given), self._model.name, digest)
            misfit = None if pair is None else profile.misfit(pair)
            if misfit is not None:
                return warned(f"{given}: {misfit.rpartition('; ')[0]}", "calibrate this pair")
        elif pair is None:
            return skipped("no worker is known, so none can be looked for")
        else:
            profile = ProfileShelf(self.broker.link, self.topics, None).find(pair, _PROFILE_WAIT_S)
        if profile is None:
            return passed(
                f"none for this pair: the threshold starts at {DEFAULT_START:g} and finds its place; "
                "edge-agent calibrate makes one"
            )
        source = "from the broker" if given is None else f"from {given}"
        return passed(f"{profile.id}, {source}, judging by {profile.default_estimator}")

    def _check_round_trip(self) -> Finding:
        """How long verdicts take, from real answers in which every token is asked about."""
        assert self._verifier is not None  # the worker's check comes first
        assert self.machine.context is not None  # as does the context's
        took_s = time_verdicts(self.settings, self._model, self.machine.context, self._verifier, _NUM_TRIPS)
        took_ms = [seconds * 1000 for seconds in took_s]
        if not took_ms:
            return failed(
                self._note or "no verdict came", "see what cloud-broker-worker doctor says at the worker"
            )
        median, slowest = statistics.median(took_ms), max(took_ms)
        limit_ms = self.settings.verdict_timeout_s * 1000
        found = f"a verdict takes {median:.1f} ms (median of {len(took_ms)}, slowest {slowest:.1f} ms)"
        figures = {"median_ms": round(median, 3), "slowest_ms": round(slowest, 3), "verdicts": len(took_ms)}
        if len(took_ms) < _NUM_TRIPS:
            return warned(f"{found}; then one did not come in time", _SLOW_MEND, **figures)
        if slowest > limit_ms / 2:
            return warned(
                f"{found}; verdict_timeout_s leaves {limit_ms:g} ms: answers will have unverified tokens",
                _SLOW_MEND,
                **figures,
            )
        return passed(f"{found}, of {limit_ms:g} ms allowed", **figures)

    def _hear_note(self, _worker: str | None, note: str | None) -> None:
        self._note = note or self._note


def _status(directory: WorkerDirectory, name: str) -> WorkerStatus:
    status = directory.status(name)
    assert status is not None  # it is online
    return status


def _described(name: str, status: WorkerStatus) -> str:
    return f"{name} ({status.model}, {status.sessions} of {status.max_sessions} sessions)"


def _is_ahead(status: WorkerStatus) -> bool:
    """Whether a worker started in the future, by this clock: boot numbers are its clock's milliseconds."""
    return status.boot / 1000 > time.time() + _CLOCKS_APART_S
