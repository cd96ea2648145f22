"""Messages from outside to what the monitor believes. In: a topic, a payload. Out: a checked message. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_broker_worker.codebooks import Codebooks
from schemas import codec
from schemas.errors import UnknownCodebook
from schemas.frames import Draft, Open, WorkerFrame
from schemas.messages import (
    AgentMetrics,
    AgentStatus,
    Completion,
    Message,
    Prompt,
    WorkerMetrics,
    WorkerStatus,
    parse_message,
)
from schemas.profile import Profile
from schemas.topics import ParsedTopic, TopicKind

Content = Message | Open | Draft | WorkerFrame

_JSON: dict[TopicKind, type[Message]] = {
    TopicKind.AGENT_STATUS: AgentStatus,
    TopicKind.WORKER_STATUS: WorkerStatus,
    TopicKind.AGENT_METRICS: AgentMetrics,
    TopicKind.WORKER_METRICS: WorkerMetrics,
    TopicKind.PROMPT: Prompt,
    TopicKind.COMPLETION: Completion,
}
_STATUS = (TopicKind.AGENT_STATUS, TopicKind.WORKER_STATUS)


@dataclass(frozen=True)
class Heard:
    """A message and whom it is from or for. `content` None: a retained status was cleared."""

    agent: str | None
    worker: str | None
    content: Content | None


def read(topic: ParsedTopic, payload: bytes, codebooks: Codebooks) -> Heard | None:
    """The message on a topic; None for what the monitor has no use for. Raises WireError for what is broken.

    Without the opening of a session or the profile of its pair, drafts of the session cannot be read.
    """
    if topic.kind is TopicKind.PROFILE:
        if payload:
            codebooks.learn(parse_message(Profile, payload))
        return None
    if topic.kind in _STATUS and not payload:
        return Heard(topic.agent, topic.worker, None)
    try:
        return Heard(topic.agent, topic.worker, _content(topic, payload, codebooks))
    except UnknownCodebook:
        return None  # not broken: opened before the monitor listened


def _content(topic: ParsedTopic, payload: bytes, codebooks: Codebooks) -> Content:
    kind, agent = topic.kind, topic.agent or ""
    if kind is TopicKind.OPEN:
        return codec.decode_open(payload, codebooks.for_opening(agent, payload))
    if kind is TopicKind.DRAFT:
        return codec.decode_draft(payload, codebooks.for_draft(agent, payload))
    if kind is TopicKind.VERDICT:
        return codec.decode_worker_frame(payload)
    return parse_message(_JSON[kind], payload)
