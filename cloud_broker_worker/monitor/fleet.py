"""What is known of the fleet. In: checked messages, in order, and the time. Out: state, and events. Pure.

All that grows is bounded, since others decide how much they send: the agents and workers that were silent
longest are forgotten, and figures are over an agent's last answers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from cloud_broker_worker.monitor.figures import Figures, figures
from cloud_broker_worker.monitor.intake import Heard
from cloud_broker_worker.monitor.rate import Rate
from cloud_broker_worker.monitor.trace import Trace
from schemas.errors import WireError
from schemas.frames import Draft, Open, Ready, Refused, Resync, Verdict
from schemas.messages import (
    AgentMetrics,
    AgentStatus,
    Completion,
    Presence,
    Prompt,
    Usage,
    WorkerMetrics,
    WorkerStatus,
)

MAX_AGENTS = 4096
MAX_WORKERS = 256
# Reports of an agent that its figures are over; each tells of one answer or of several.
MAX_REPORTS = 64
# Answers that were heard since the last report; a report comes long before.
_MAX_UNREPORTED = 1024
# Beats that a worker may miss before it counts as stale, as agents see it (schemas.messages.WorkerStatus).
_BEATS_MISSED = 3
_MAX_COMPLETION_CHARS = 8192
_MAX_REPLIES = 256

# What is sent to an agent, not by it.
_FROM_OTHERS = (Prompt, Verdict, Ready, Refused, Resync)


@dataclass(frozen=True)
class AnswerEnded:
    """An agent has finished an answer, as its frames tell."""

    agent: str
    trace: Trace


@dataclass(frozen=True)
class Reported:
    """An agent has said what its answers since its last report came to."""

    agent: str
    metrics: AgentMetrics


@dataclass(frozen=True)
class Came:
    """An agent or a worker is online, or has started anew."""

    kind: str
    name: str
    model: str | None

    @property
    def agent(self) -> str | None:
        """The agent, if it is one."""
        return self.name if self.kind == "agent" else None


@dataclass(frozen=True)
class Went:
    """An agent or a worker has gone offline."""

    kind: str
    name: str

    @property
    def agent(self) -> str | None:
        """The agent, if it is one."""
        return self.name if self.kind == "agent" else None


Event = AnswerEnded | Reported | Came | Went


@dataclass
class AgentView:
    """What is known of one agent. `completion` is the text it sends to whoever asked over MQTT."""

    name: str
    tokens: Rate
    status: AgentStatus | None = None
    trace: Trace | None = None
    recent: deque[AgentMetrics] = field(default_factory=lambda: deque(maxlen=MAX_REPORTS))
    unreported: deque[Usage] = field(default_factory=lambda: deque(maxlen=_MAX_UNREPORTED))
    num_reported: int = 0
    question: str | None = None
    completion: str = ""

    @property
    def is_online(self) -> bool:
        """Whether it is there; one that was only heard of by its frames is."""
        return self.status is None or self.status.state is Presence.ONLINE

    @property
    def is_answering(self) -> bool:
        """Whether an answer is under way, as far as its frames tell."""
        return self.trace is not None and not self.trace.ended

    @property
    def num_answers(self) -> int:
        """Answers that it has reported, and those heard since."""
        return self.num_reported + len(self.unreported)

    @property
    def usages(self) -> list[Usage]:
        """What its last answers came to: as it said, and since then as far as the frames tell."""
        return [*(metrics.usage for metrics in self.recent), *self.unreported]

    @property
    def figures(self) -> Figures:
        """Over the last answers, and the one under way."""
        under_way = self.trace.counts if self.trace is not None and not self.trace.ended else {}
        return figures(self.usages, under_way)


@dataclass
class WorkerView:
    """What is known of one worker. `reply_s` are the times from a draft to its verdict, as heard here."""

    name: str
    drafts: Rate
    status: WorkerStatus | None = None
    status_at_s: float = 0.0
    metrics: WorkerMetrics | None = None
    reply_s: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_REPLIES))

    @property
    def is_online(self) -> bool:
        """Whether it says that it is there."""
        return self.status is None or self.status.state is Presence.ONLINE

    @property
    def reply_median_ms(self) -> float | None:
        """Median time from a draft to its verdict, both as they pass the broker."""
        return median(self.reply_s) * 1000 if self.reply_s else None

    def is_stale(self, now_s: float) -> bool:
        """Whether it is online but has missed its beats."""
        if self.status is None or not self.is_online:
            return False
        return now_s - self.status_at_s > _BEATS_MISSED * self.status.beat_s


class Fleet:
    """All agents and workers that were heard of since `started_s`."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self.agents: OrderedDict[str, AgentView] = OrderedDict()
        self.workers: OrderedDict[str, WorkerView] = OrderedDict()
        self.broken: Counter[str] = Counter()  # messages that were not believed, by reason
        self.last_broken: str | None = None
        self.num_forgotten = 0
        self._sent_at_s: OrderedDict[tuple[str, int, int, int], float] = OrderedDict()

    @property
    def figures(self) -> Figures:
        """Over the last answers of all agents."""
        return figures([usage for agent in self.agents.values() for usage in agent.usages], {})

    def tokens_per_second(self, now_s: float) -> float:
        """Of all agents together."""
        return sum(agent.tokens.per_second(now_s) for agent in self.agents.values())

    def hear(self, heard: Heard, now_s: float) -> list[Event]:
        """Enter one message; returns what it tells that a reader of lines wants to know."""
        content = heard.content
        if content is None:
            self._forget(heard)
            return []
        if heard.agent is not None:
            if isinstance(content, _FROM_OTHERS) and heard.agent not in self.agents:
                return []  # whoever writes to an agent can make a name up
            agent = self._agent(heard.agent)
            return list(self._hear_agent(agent, heard.worker, content, now_s))
        assert heard.worker is not None  # every topic that is read names one or the other
        return list(self._hear_worker(self._worker(heard.worker), content, now_s))

    def hear_broken(self, agent: str | None, worker: str | None, error: WireError) -> None:
        """Count a message that broke a rule. Nobody is entered into the fleet for it."""
        self.broken[type(error).__name__] += 1
        sender = agent or worker
        self.last_broken = f"{sender}: {error}" if sender else str(error)

    # ------------------------------------------------------------------------------------------- agents

    def _hear_agent(
        self, agent: AgentView, worker: str | None, content: object, now_s: float
    ) -> Iterable[Event]:
        match content:
            case AgentStatus():
                yield from self._hear_agent_status(agent, content)
            case AgentMetrics():
                yield from self._hear_report(agent, content, now_s)
            case Open() if worker is not None:
                if agent.trace is None or not agent.trace.reopen(content, worker):
                    yield from _end_answer(agent)
                    agent.trace = Trace.opened(content, worker)
            case Draft() if worker is not None:
                self._hear_draft(agent, worker, content, now_s)
            case Verdict() | Ready() | Refused() | Resync():
                self._hear_reply(agent, content, now_s)
                if agent.trace is not None and agent.trace.is_complete:
                    yield from _end_answer(agent)
            case Prompt():
                agent.question, agent.completion = _question(content), ""
            case Completion():
                if content.index == 0:
                    agent.completion = ""
                agent.completion = (agent.completion + content.text)[-_MAX_COMPLETION_CHARS:]
            case _:
                pass

    def _hear_agent_status(self, agent: AgentView, status: AgentStatus) -> Iterable[Event]:
        if _is_late(agent.status, status):
            return
        event = _presence_event("agent", agent.name, agent.status, status)
        agent.status = status
        if event is not None:
            yield from _end_answer(agent)
            yield event

    def _hear_draft(self, agent: AgentView, worker: str, draft: Draft, now_s: float) -> None:
        if worker in self.workers:  # an agent can make a name up
            self.workers[worker].drafts.add(now_s)
        self._sent_at_s[agent.name, draft.session, draft.epoch, draft.position] = now_s
        if len(self._sent_at_s) > MAX_AGENTS:
            self._sent_at_s.popitem(last=False)
        if agent.trace is None or not agent.trace.takes(draft):
            agent.trace = Trace.joined(draft, worker)
        before = agent.trace.num_settled
        agent.trace.draft(draft)
        agent.tokens.add(now_s, max(0, agent.trace.num_settled - before))

    def _hear_reply(self, agent: AgentView, reply: Verdict | Ready | Refused | Resync, now_s: float) -> None:
        if agent.trace is None:
            return
        if isinstance(reply, Resync):
            agent.trace.resync(reply)
        if not isinstance(reply, Verdict):
            return
        sent_at_s = self._sent_at_s.pop((agent.name, reply.session, reply.epoch, reply.position), None)
        if sent_at_s is not None and agent.trace.worker in self.workers:
            self.workers[agent.trace.worker].reply_s.append(now_s - sent_at_s)
        before = agent.trace.num_settled
        agent.trace.verdict(reply)
        agent.tokens.add(now_s, max(0, agent.trace.num_settled - before))

    def _hear_report(self, agent: AgentView, metrics: AgentMetrics, now_s: float) -> Iterable[Event]:
        """It comes after the end of the last answer that it tells of, and settles what frames left open."""
        yield from _end_answer(agent)
        num_heard = sum(usage.tokens for usage in agent.unreported)
        agent.tokens.add(now_s, max(0, metrics.usage.tokens - num_heard))  # those that no frame told
        if metrics.answers == 1 and agent.trace is not None and agent.trace.usage is None:
            agent.trace.settle(metrics.usage)
        agent.unreported.clear()
        agent.recent.append(metrics)
        agent.num_reported += metrics.answers
        yield Reported(agent.name, metrics)

    # ------------------------------------------------------------------------------------------ workers

    def _hear_worker(self, worker: WorkerView, content: object, now_s: float) -> Iterable[Event]:
        match content:
            case WorkerStatus():
                if not _is_late(worker.status, content):
                    event = _presence_event("worker", worker.name, worker.status, content)
                    worker.status, worker.status_at_s = content, now_s
                    yield from [event] if event else []
            case WorkerMetrics():
                worker.metrics = content
            case _:
                pass

    # --------------------------------------------------------------------------------------------- both

    def _forget(self, heard: Heard) -> None:
        """A retained status was cleared: whoever it was is not expected back."""
        if heard.agent is not None:
            self.agents.pop(heard.agent, None)
        elif heard.worker is not None:
            self.workers.pop(heard.worker, None)

    def _agent(self, name: str) -> AgentView:
        view = self.agents.setdefault(name, AgentView(name, Rate(self._started_s)))
        self.agents.move_to_end(name)
        if len(self.agents) > MAX_AGENTS:
            self.agents.popitem(last=False)
            self.num_forgotten += 1
        return view

    def _worker(self, name: str) -> WorkerView:
        view = self.workers.setdefault(name, WorkerView(name, Rate(self._started_s)))
        self.workers.move_to_end(name)
        if len(self.workers) > MAX_WORKERS:
            self.workers.popitem(last=False)
            self.num_forgotten += 1
        return view


def _end_answer(agent: AgentView) -> Iterable[Event]:
    """The answer under way, if there is one, is over."""
    if agent.trace is not None and not agent.trace.ended:
        agent.trace.end()
        agent.unreported.append(agent.trace.heard)
        yield AnswerEnded(agent.name, agent.trace)


def _presence_event(
    kind: str, name: str, known: AgentStatus | WorkerStatus | None, new: AgentStatus | WorkerStatus
) -> Event | None:
    """What a status says that the one before did not."""
    was_online = known is not None and known.state is Presence.ONLINE
    if new.state is Presence.OFFLINE:
        return Went(kind, name) if was_online else None
    is_same = was_online and known is not None and known.boot == new.boot
    return None if is_same else Came(kind, name, new.model)


def _is_late(known: AgentStatus | WorkerStatus | None, new: AgentStatus | WorkerStatus) -> bool:
    """Whether it is the late farewell of a process that has been started anew since."""
    return new.state is Presence.OFFLINE and known is not None and known.boot != new.boot


def _question(prompt: Prompt) -> str:
    """What was asked, or the last turn of it."""
    return prompt.text if prompt.text is not None else (prompt.messages or ())[-1].content
