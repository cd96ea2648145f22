"""The JSON messages: status, metrics, prompts and completions. In: JSON from outside. Out: checked models.

They are off the hot path, so they are made to be read: `mosquitto_sub -v` shows them as they are. Unknown
fields are ignored, so that a newer sender does not break an older reader.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import OutOfRange, TooLarge
from schemas.frames import MAX_TOKEN_ID
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

MAX_JSON_BYTES = 1 << 18
# Larger answers would be cut by every model's context anyway.
MAX_ANSWER_TOKENS = 2**17
MAX_TURNS = 4096

# The largest integer that every JSON reader keeps exact: many take numbers for doubles (RFC 8259, section 6).
MAX_JSON_INTEGER = 2**53 - 1
# A place in a broken message is quoted up to this length: it may be a name that the sender made up.
_MAX_PLACE = 64

Share = Annotated[float, Field(ge=0, le=1)]
CodebookDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Count = Annotated[int, Field(ge=0, le=MAX_JSON_INTEGER)]


class Message(BaseModel):
    """Base of all JSON messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """The message as compact JSON, fields that are not set left out."""
        return self.model_dump_json(exclude_none=True).encode()


class Presence(Enum):
    """Whether a process is there; OFFLINE is its last will and its farewell."""

    ONLINE = "online"
    OFFLINE = "offline"


class VocabularyMark(Message):
    """A vocabulary's fingerprint: a hash (hex) over its first `num_tokens` tokens."""

    num_tokens: int = Field(ge=1, le=MAX_TOKEN_ID + 1)
    digest: str = Field(pattern=r"^[0-9a-f]{32}$")

    @classmethod
    def of(cls, fingerprint: Fingerprint) -> VocabularyMark:
        """The JSON form of a fingerprint."""
        return cls(num_tokens=fingerprint.num_tokens, digest=fingerprint.digest.hex())

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of this JSON form."""
        return Fingerprint(self.num_tokens, bytes.fromhex(self.digest))


class AgentStatus(Message):
    """`agents/{agent}/status`, retained."""

    state: Presence
    boot: Count = Field(
        description="grows with each start, so that a late will cannot mark a new process dead"
    )
    version: str | None = None
    model: str | None = None
    worker: str | None = Field(None, description="the worker in use; none: answers are unverified")
    note: str | None = Field(None, description="why there is no worker, in one line")


class WorkerStatus(Message):
    """`workers/{worker}/status`, retained, sent again at every beat."""

    state: Presence
    boot: Count
    version: str | None = None
    model: str | None = None
    vocabulary: VocabularyMark | None = None
    beat_s: float = Field(
        5.0, gt=0, le=3600, description="seconds to the next status; three missed make it stale"
    )
    sessions: Count = 0
    max_sessions: Count = 0
    n_ctx: Count = 0
    load: Share = Field(0.0, description="share of the time since the last beat spent in the target model")
    codebooks: tuple[CodebookDigest, ...] | None = Field(
        None, max_length=64, description="digests of the codebooks that an opening may name"
    )


class Usage(Message):
    """What one answer was made of and what it cost."""

    prompt_tokens: Count = 0
    tokens: Count = 0
    skipped: Count = 0
    accepted: Count = 0
    recovered: Count = 0
    bonus: Count = 0
    unverified: Count = 0
    bytes_up: Count | None = Field(None, description="all bytes on the socket, MQTT included")
    bytes_down: Count | None = None
    seconds: float = Field(0.0, ge=0)
    round_trip_median_ms: float | None = Field(None, ge=0)
    round_trip_p99_ms: float | None = Field(None, ge=0)
    audited: Count = Field(0, description="skipped tokens whose rejection probability came back")
    divergence: float | None = Field(
        None, ge=0, description="audited mean of skip * beta a token, unverified tokens not counted"
    )


class AgentMetrics(Message):
    """`agents/{agent}/metrics`: after each answer."""

    request_id: str
    risk: float | None = Field(None, description="the divergence allowed; none: a fixed threshold is set")
    threshold: float = Field(description="uncertainty above which a token is asked about")
    usage: Usage


class WorkerMetrics(Message):
    """`workers/{worker}/metrics`: at a slow beat, counted since the start."""

    drafts: Count = 0
    accepted: Count = 0
    recovered: Count = 0
    audited_tokens: Count = 0
    target_tokens: Count = 0
    target_passes: Count = 0
    opened: Count = 0
    evicted: Count = 0
    resynced: Count = 0
    refused: Count = 0
    dropped: dict[str, Count] = Field(default_factory=dict, description="messages not taken, by reason")


class ChatMessage(Message):
    """One turn of a conversation; the roles are those of the model's chat template."""

    role: str = Field(min_length=1, max_length=32)
    content: str


class Prompt(Message):
    """`agents/{agent}/prompt`: a question, as plain text or as the turns of a conversation."""

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="names the completion's topic")
    text: str | None = Field(None, description="one user turn")
    # Lists fail fast: 100,000 wrong turns would take half a second to complain about.
    messages: tuple[ChatMessage, ...] | None = Field(
        None, fail_fast=True, min_length=1, max_length=MAX_TURNS, description="all turns; instead of `text`"
    )
    raw: bool = Field(False, description="continue `text` itself instead of answering it as a chat")
    max_tokens: int | None = Field(None, ge=1, le=MAX_ANSWER_TOKENS)
    sampling: SamplingParameters | None = Field(None, description="instead of the agent's own")
    seed: int | None = Field(None, ge=0, lt=2**64)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None, fail_fast=True, max_length=16, description="strings that end the answer; not part of it"
    )

    @model_validator(mode="after")
    def _one_question(self) -> Prompt:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give either text or messages")
        if self.raw and self.text is None:
            raise ValueError("raw needs text")
        return self


class Completion(Message):
    """`agents/{agent}/completion/{id}`: a piece of the answer; the last one says why it ended."""

    index: Count = Field(description="0, 1, 2, …: a gap means a lost piece")
    text: str = ""
    finish_reason: Literal["stop", "length", "error"] | None = None
    error: str | None = None
    usage: Usage | None = None


AnyMessage = TypeVar("AnyMessage", bound=Message)


def parse_message(kind: type[AnyMessage], payload: bytes) -> AnyMessage:
    """A checked message from untrusted JSON. Raises TooLarge or OutOfRange, which name the field at fault.

    Types are taken at their word: "5" and true are no integers, NaN and Infinity are no numbers.
    """
    if len(payload) > MAX_JSON_BYTES:
        raise TooLarge(kind.__name__, f"{len(payload)} bytes, at most {MAX_JSON_BYTES}")
    try:
        return kind.model_validate_json(payload, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # Escaped and cut, so that a made-up name cannot break out of the line that quotes it.
        place = ".".join(str(part) for part in problem["loc"]).encode("unicode_escape").decode()
        raise OutOfRange(place[:_MAX_PLACE] or kind.__name__, problem["msg"]) from error
