"""The MQTT topics. In: names of agents, workers, requests, profiles. Out: topics and filters, and back.

`TOPIC_RULES` is the one table of who writes and who reads what; the broker's access lists and the
documentation are generated from it, so that neither can drift from the code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from schemas.errors import ConfigurationError, UnknownKind

DEFAULT_ROOT = "hunch/v1"

# Names become topic levels and MQTT client ids. Every MQTT broker must take client ids of letters and digits;
# '.', '_' and '-' are taken by all the brokers in use and have no meaning in topics, access lists or shells.
MAX_NAME_LENGTH = 64
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class TopicKind(Enum):
    """What a topic is for; the value is its name in the documentation."""

    AGENT_STATUS = "agent_status"
    OPEN = "open"
    DRAFT = "draft"
    VERDICT = "verdict"
    AGENT_METRICS = "agent_metrics"
    PROMPT = "prompt"
    COMPLETION = "completion"
    WORKER_STATUS = "worker_status"
    WORKER_METRICS = "worker_metrics"
    PROFILE = "profile"


class Role(Enum):
    """Who a broker user is. A client asks an agent over MQTT; an operator watches everything; a home's software
    shows agents and workers as devices (see `schemas.home_assistant`).
    """

    AGENT = "agent"
    WORKER = "worker"
    CLIENT = "client"
    OPERATOR = "operator"
    HOME_ASSISTANT = "home-assistant"


@dataclass(frozen=True)
class TopicRule:
    """One kind of topic: its pattern below the root, who may write and read it, and how it is sent."""

    kind: TopicKind
    pattern: str
    writers: tuple[Role, ...]
    readers: tuple[Role, ...]
    retained: bool
    qos: int
    payload: str


_A, _W, _C, _O, _H = Role.AGENT, Role.WORKER, Role.CLIENT, Role.OPERATOR, Role.HOME_ASSISTANT
_K = TopicKind

TOPIC_RULES: tuple[TopicRule, ...] = (
    TopicRule(_K.AGENT_STATUS, "agents/{agent}/status", (_A,), (_W, _C, _O, _H), True, 1, "AgentStatus"),
    TopicRule(_K.OPEN, "agents/{agent}/open/{worker}", (_A,), (_W, _O), False, 1, "Open"),
    TopicRule(_K.DRAFT, "agents/{agent}/draft/{worker}", (_A,), (_W, _O), False, 0, "Draft"),
    TopicRule(_K.VERDICT, "agents/{agent}/verdict", (_W,), (_A, _O), False, 0, "Verdict"),
    TopicRule(_K.AGENT_METRICS, "agents/{agent}/metrics", (_A,), (_O, _H), False, 0, "AgentMetrics"),
    TopicRule(_K.PROMPT, "agents/{agent}/prompt", (_C,), (_A, _O), False, 1, "Prompt"),
    TopicRule(_K.COMPLETION, "agents/{agent}/completion/{id}", (_A,), (_C, _O), False, 1, "Completion"),
    TopicRule(_K.WORKER_STATUS, "workers/{worker}/status", (_W,), (_A, _O, _H), True, 1, "WorkerStatus"),
    TopicRule(_K.WORKER_METRICS, "workers/{worker}/metrics", (_W,), (_O, _H), False, 0, "WorkerMetrics"),
    TopicRule(_K.PROFILE, "profiles/{id}", (_W,), (_A, _W, _O), True, 1, "Profile"),
)


def check_name(name: str) -> str:
    """Return `name` if it can be a topic level and a client id; else raise ConfigurationError."""
    if len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name):
        return name
    shown = name if len(name) <= MAX_NAME_LENGTH else name[:MAX_NAME_LENGTH] + "..."
    raise ConfigurationError(
        f"name {shown!r} cannot be used; use 1 to {MAX_NAME_LENGTH} letters (a-z), digits, '.', '_' or '-'"
    )


@dataclass(frozen=True)
class ParsedTopic:
    """A topic taken apart; `item` is a request id or a profile id. None: the kind has no such part."""

    kind: TopicKind
    agent: str | None
    worker: str | None
    item: str | None


@dataclass(frozen=True)
class Topics:
    """All topics and subscription filters under one root. Every method that takes a name checks it."""

    root: str = DEFAULT_ROOT

    def __post_init__(self) -> None:
        for level in self.root.split("/"):
            check_name(level)

    def agent_status(self, agent: str) -> str:
        """Whether an agent is online, and with what; retained, and its last will."""
        return self._fill(TopicKind.AGENT_STATUS, agent=agent)

    def open(self, agent: str, worker: str) -> str:
        """A session that an agent opens at a worker."""
        return self._fill(TopicKind.OPEN, agent=agent, worker=worker)

    def draft(self, agent: str, worker: str) -> str:
        """Drafts of an agent for a worker."""
        return self._fill(TopicKind.DRAFT, agent=agent, worker=worker)

    def verdict(self, agent: str) -> str:
        """Verdicts of any worker for an agent."""
        return self._fill(TopicKind.VERDICT, agent=agent)

    def agent_metrics(self, agent: str) -> str:
        """An agent's measurements."""
        return self._fill(TopicKind.AGENT_METRICS, agent=agent)

    def prompt(self, agent: str) -> str:
        """Questions to an agent from other MQTT clients."""
        return self._fill(TopicKind.PROMPT, agent=agent)

    def completion(self, agent: str, request_id: str) -> str:
        """An agent's answer to one question."""
        return self._fill(TopicKind.COMPLETION, agent=agent, id=request_id)

    def worker_status(self, worker: str) -> str:
        """Whether a worker is online, and with what; retained, and its last will."""
        return self._fill(TopicKind.WORKER_STATUS, worker=worker)

    def worker_metrics(self, worker: str) -> str:
        """A worker's measurements."""
        return self._fill(TopicKind.WORKER_METRICS, worker=worker)

    def profile(self, profile_id: str) -> str:
        """The calibrated profile of a pair of models; retained."""
        return self._fill(TopicKind.PROFILE, id=profile_id)

    def all_agent_status(self) -> str:
        """Filter for the status of every agent."""
        return self._fill(TopicKind.AGENT_STATUS)

    def all_worker_status(self) -> str:
        """Filter for the status of every worker."""
        return self._fill(TopicKind.WORKER_STATUS)

    def all_agent_metrics(self) -> str:
        """Filter for every agent's measurements."""
        return self._fill(TopicKind.AGENT_METRICS)

    def all_worker_metrics(self) -> str:
        """Filter for every worker's measurements."""
        return self._fill(TopicKind.WORKER_METRICS)

    def all_profiles(self) -> str:
        """Filter for every profile."""
        return self._fill(TopicKind.PROFILE)

    def opens_for(self, worker: str) -> str:
        """Filter for the sessions that any agent opens at a worker."""
        return self._fill(TopicKind.OPEN, worker=worker)

    def drafts_for(self, worker: str) -> str:
        """Filter for the drafts of any agent for a worker."""
        return self._fill(TopicKind.DRAFT, worker=worker)

    def completions_of(self, agent: str) -> str:
        """Filter for all of an agent's answers."""
        return self._fill(TopicKind.COMPLETION, agent=agent)

    def everything(self) -> str:
        """Filter for all topics under the root, for operators alone."""
        return f"{self.root}/#"

    def filter_for(self, rule: TopicRule, role: Role, name: str) -> str:
        """The filter of what `name`, being of `role`, may write or read of a kind of topic.

        A placeholder of the user's own role is their own name, any other is a wildcard: agent 'pi' writes
        agents/pi/open/+, worker 'w' reads agents/+/open/w, an operator reads agents/+/open/+.
        """
        own = {role.value: name} if role in (Role.AGENT, Role.WORKER) else {}
        return self._fill(rule.kind, **own)

    def parse(self, topic: str) -> ParsedTopic:
        """Take a topic apart. Raises UnknownKind for any that no method of this class could have made."""
        levels = topic.split("/")
        root_levels = self.root.split("/")
        if levels[: len(root_levels)] == root_levels:
            found = _match(levels[len(root_levels) :])
            if found is not None:
                return found
        raise UnknownKind("topic", f"{topic[:200]!r} is not one of the topics under {self.root!r}")

    def _fill(self, kind: TopicKind, **names: str) -> str:
        """The topic of `kind` with its placeholders filled; those left out become the wildcard '+'."""
        pattern = _RULE_OF[kind].pattern
        filled = [
            check_name(names[level[1:-1]]) if level[1:-1] in names else "+" if level[0] == "{" else level
            for level in pattern.split("/")
        ]
        return "/".join([self.root, *filled])


_RULE_OF = {rule.kind: rule for rule in TOPIC_RULES}
_PATTERNS = tuple((rule.kind, tuple(rule.pattern.split("/"))) for rule in TOPIC_RULES)


def _match(levels: list[str]) -> ParsedTopic | None:
    """The parsed topic, from its levels below the root; None where no pattern fits."""
    for kind, pattern in _PATTERNS:
        if len(pattern) != len(levels):
            continue
        if any(p[0] != "{" and p != level for p, level in zip(pattern, levels, strict=True)):
            continue
        names = {p[1:-1]: level for p, level in zip(pattern, levels, strict=True) if p[0] == "{"}
        if all(len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) for name in names.values()):
            return ParsedTopic(kind, names.get("agent"), names.get("worker"), names.get("id"))
    return None
