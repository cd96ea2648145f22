"""What each topic carries. In: `schemas`. Out: message classes, their JSON Schemas, an example of each."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

import numpy as np

from schemas import codec, frames
from schemas.audit import encode_betas
from schemas.compression import BodyCodec
from schemas.distribution import TruncatedDistribution
from schemas.frames import Doubt, Draft, Open, Outcome, Ready, Refused, Resync, Verdict
from schemas.messages import (
    AgentMetrics,
    AgentStatus,
    Completion,
    Message,
    Presence,
    Prompt,
    Usage,
    VocabularyMark,
    WorkerMetrics,
    WorkerStatus,
)
from schemas.profile import (
    EstimatorReport,
    LearnedModel,
    LinearFit,
    Pair,
    Profile,
    ResidualTable,
    StartingThreshold,
)
from schemas.sampling import SamplingParameters
from schemas.topics import TOPIC_RULES, TopicKind, TopicRule
from schemas.vocabulary import Fingerprint

# A verdict's topic carries all that a worker says to an agent.
FRAMES: dict[TopicKind, tuple[type[frames.AgentFrame | frames.WorkerFrame], ...]] = {
    TopicKind.OPEN: (Open,),
    TopicKind.DRAFT: (Draft,),
    TopicKind.VERDICT: get_args(frames.WorkerFrame),
}
_NAMED: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (AgentStatus, AgentMetrics, Prompt, Completion, WorkerStatus, WorkerMetrics, Profile)
}
JSON_KINDS = tuple(_NAMED[rule.payload] for rule in TOPIC_RULES if rule.kind not in FRAMES)


def kinds_of(rule: TopicRule) -> tuple[type, ...]:
    """The messages that may come on a topic."""
    return FRAMES.get(rule.kind) or (_NAMED[rule.payload],)


def summary(kind: type) -> str:
    """What a message is, from its docstring: its first paragraph, less the topic, which stands elsewhere."""
    first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r"^`[^`]+/[^`]+`[:,] ", "", first)


def schema(kind: type[Message]) -> dict[str, Any]:
    """A message's JSON Schema, complete in itself."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:hunch:v1:{kind.__name__}"}
    return {**head, **plain_text(kind.model_json_schema())}


def plain_text(value: Any) -> Any:
    """A schema whose descriptions are single lines: docstrings come with the line ends of the code."""
    if isinstance(value, dict):
        return {
            name: " ".join(part.split())
            if name == "description" and isinstance(part, str)
            else plain_text(part)
            for name, part in value.items()
        }
    return [plain_text(part) for part in value] if isinstance(value, list) else value


def example(kind: type[Message]) -> Message:
    """A message as it could be."""
    return next(message for message in _EXAMPLES if type(message) is kind)


def example_frame(kind: type) -> bytes:
    """A frame as it could be."""
    frame = next(frame for frame in _FRAME_EXAMPLES if type(frame) is kind)
    match frame:
        case Open():
            return codec.encode_open(frame, BodyCodec())
        case Draft():
            return codec.encode_draft(frame, BodyCodec())
        case _:
            return codec.encode_worker_frame(frame)


_DIGEST = "708741ccee4d29b4c2d959b765fa532c"
_MARK = VocabularyMark(num_tokens=4096, digest=_DIGEST)
_SAMPLING = SamplingParameters(temperature=0.7, top_k=40, top_p=0.95, min_p=0.05)
_USAGE = Usage(
    prompt_tokens=21,
    tokens=40,
    skipped=29,
    accepted=6,
    recovered=2,
    bonus=3,
    unverified=0,
    bytes_up=611,
    bytes_down=248,
    seconds=0.82,
    round_trip_median_ms=21.4,
    round_trip_p99_ms=39.0,
    audited=29,
    divergence=0.013,
)
_TABLE = ResidualTable(keys=(17, 300), thousandths=(-42, 125))
_EXAMPLES: tuple[Message, ...] = (
    AgentStatus(
        state=Presence.ONLINE,
        boot=1732437600123,
        version="0.1.0",
        model="draft-q4_k_m.gguf",
        worker="cloud-1",
    ),
    WorkerStatus(
        state=Presence.ONLINE,
        boot=1732437600456,
        version="0.1.0",
        model="target-q8_0.gguf",
        vocabulary=_MARK,
        sessions=2,
        max_sessions=16,
        n_ctx=768,
        load=0.31,
    ),
    AgentMetrics(request_id="q-1", risk=0.02, threshold=0.31, usage=_USAGE),
    WorkerMetrics(
        drafts=912,
        accepted=640,
        recovered=151,
        audited_tokens=3377,
        target_tokens=5120,
        target_passes=402,
        opened=57,
        resynced=1,
        dropped={"stale epoch": 2},
    ),
    Prompt(id="q-1", text="What is MQTT?", max_tokens=64, sampling=_SAMPLING, seed=7, stop=("\n\n",)),
    Completion(index=9, text=" to many.", finish_reason="stop", usage=_USAGE),
    Profile(
        pair=Pair(
            draft="draft-q4_k_m.gguf",
            draft_digest=_DIGEST[::-1],
            draft_vocabulary=_MARK,
            target="target-q8_0.gguf",
            target_vocabulary=_MARK,
        ),
        sampling=_SAMPLING,
        k=16,
        fitted=15_000,
        held_out=5_000,
        mean_beta=0.31,
        estimators=(
            EstimatorReport(
                name="entropy",
                auroc=0.82,
                correlation=0.55,
                thresholds=(StartingThreshold(risk=0.02, threshold=0.12, skipped=0.74),),
            ),
        ),
        default_estimator="entropy",
        linear=LinearFit(slope=0.815, intercept=-0.066, risk_averse=0.081, risk_prone=0.8117),
        learned=LearnedModel(
            features=("entropy",),
            means=(1.2,),
            scales=(0.8,),
            weights=(0.9,),
            intercept=-1.1,
            draft_token=_TABLE,
            previous_token=_TABLE,
            pair=_TABLE,
            alternative=_TABLE,
            triple=_TABLE,
        ),
    ),
)

_Q_HAT = TruncatedDistribution(np.array([17, 300, 301], np.int32), np.array([6, 200, 50], np.uint16))
_FRAME_EXAMPLES: tuple[frames.AgentFrame | frames.WorkerFrame, ...] = (
    Open(70_000, Fingerprint(4096, bytes.fromhex(_DIGEST)), _SAMPLING, 7, 768, (1, 300, 17)),
    Draft(70_000, 3, 300, (15, 2000), (256, 90), Doubt(_Q_HAT, 1, 250)),
    Verdict(70_000, 3, 300, Outcome.ACCEPTED, 1234, encode_betas(np.array([0.0, 0.25, 0.0]))),
    Ready(70_000, 3),
    Refused(70_000, "all 16 sessions are in use"),
    Resync(70_000, 3, 296),
)
