"""Messages from outside to what the monitor believes. In: a topic, a payload. Out: a checked message. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from schemas import codec
from schemas.compression import BodyCodec
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


def read(topic: ParsedTopic, payload: bytes, bodies: BodyCodec) -> Heard | None:
    """The message on a topic; None for what the monitor has no use for. Raises WireError for what is broken."""
    if topic.kind is TopicKind.PROFILE:
        return None
    if topic.kind in _STATUS and not payload:
        return Heard(topic.agent, topic.worker, None)
    return Heard(topic.agent, topic.worker, _content(topic.kind, payload, bodies))


def _content(kind: TopicKind, payload: bytes, bodies: BodyCodec) -> Content:
    if kind is TopicKind.OPEN:
        return codec.decode_open(payload, bodies)
    if kind is TopicKind.DRAFT:
        return codec.decode_draft(payload, bodies)
    if kind is TopicKind.VERDICT:
        return codec.decode_worker_frame(payload)
    return parse_message(_JSON[kind], payload)
