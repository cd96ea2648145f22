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

    num_tokens: int = Field(ge=1, le=MAX_TOKEN_ID + 1, description="how many tokens the digest covers")
    digest: str = Field(pattern=r"^[0-9a-f]{32}$", description="BLAKE2b over them, 16 bytes in hex")

    @classmethod
    def of(cls, fingerprint: Fingerprint) -> VocabularyMark:
        """The JSON form of a fingerprint."""
        return cls(num_tokens=fingerprint.num_tokens, digest=fingerprint.digest.hex())

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of this JSON form."""
        return Fingerprint(self.num_tokens, bytes.fromhex(self.digest))


class AgentStatus(Message):
    """`agents/{agent}/status`: whether an agent is there, and with what."""

    state: Presence = Field(description="offline is the last will and the farewell")
    boot: Count = Field(
        description="grows with each start, so that a late will cannot mark a new process dead"
    )
    version: str | None = Field(None, description="of Hunch")
    model: str | None = Field(None, description="the draft model's name")
    worker: str | None = Field(None, description="the worker in use; none: answers are unverified")
    note: str | None = Field(None, description="why there is no worker, in one line")


class WorkerStatus(Message):
    """`workers/{worker}/status`: whether a worker is there, and with what; sent again at every beat."""

    state: Presence = Field(description="offline is the last will and the farewell")
    boot: Count = Field(description="grows with each start, as an agent's does")
    version: str | None = Field(None, description="of Hunch")
    model: str | None = Field(None, description="the target model's name")
    vocabulary: VocabularyMark | None = Field(
        None, description="fingerprint of all of the target model's tokens; none: no agent asks"
    )
    beat_s: float = Field(
        5.0, gt=0, le=3600, description="seconds to the next status; three missed make it stale"
    )
    sessions: Count = Field(0, description="sessions held now")
    max_sessions: Count = Field(0, description="sessions held at most; then the longest idle one is evicted")
    n_ctx: Count = Field(0, description="tokens that a session may hold")
    load: Share = Field(0.0, description="share of the time since the last beat spent in the target model")
    codebooks: tuple[CodebookDigest, ...] | None = Field(
        None, max_length=64, description="digests of the codebooks that an opening may name"
    )


class Usage(Message):
    """What one answer was made of and what it cost."""

    prompt_tokens: Count = Field(0, description="tokens of the prompt")
    tokens: Count = Field(0, description="tokens of the answer: the sum of the next five")
    skipped: Count = Field(0, description="kept without asking")
    accepted: Count = Field(0, description="asked about and kept")
    recovered: Count = Field(0, description="asked about and replaced by the target model's")
    bonus: Count = Field(0, description="given by the target model on top of an accepted one")
    unverified: Count = Field(0, description="kept because no verdict came, or nobody could be asked")
    bytes_up: Count | None = Field(None, description="sent on the socket meanwhile, MQTT and TLS included")
    bytes_down: Count | None = Field(None, description="received on the socket meanwhile")
    seconds: float = Field(0.0, ge=0, description="from the prompt's tokens to the last one of the answer")
    round_trip_median_ms: float | None = Field(
        None, ge=0, description="from asking to the verdict; none: no verdict came"
    )
    round_trip_p99_ms: float | None = Field(None, ge=0, description="the same, 99 % were faster")
    audited: Count = Field(0, description="skipped tokens whose rejection probability came back")
    divergence: float | None = Field(
        None, ge=0, description="audited mean of skip * beta a token, unverified tokens not counted"
    )
    divergence_margin: float | None = Field(
        None, ge=0, description="half the width of the divergence's 95 % confidence interval"
    )

    @property
    def num_judged(self) -> int:
        """Tokens that the divergence is a mean over: all but unverified ones and unaudited skips."""
        return max(0, self.tokens - self.unverified - self.skipped + self.audited)


class RecentFigures(Message):
    """The last 2,000 tokens of an agent, or fewer where it has not said so many; shares are of all of them."""

    tokens: Count = Field(0, description="how many these are")
    skip_share: Share = Field(0.0, description="kept on the board without asking")
    unverified_share: Share = Field(0.0, description="kept because no verdict came in time")
    divergence: float | None = Field(None, ge=0, description="as in a usage")
    divergence_margin: float | None = Field(None, ge=0, description="as in a usage")


class AgentMetrics(Message):
    """`agents/{agent}/metrics`: what answers came to, as often as a share of the bytes allows."""

    request_id: str = Field(description="of the last answer that is summed up here")
    answers: int = Field(1, ge=1, le=MAX_JSON_INTEGER, description="answers whose usage is summed up")
    risk: float | None = Field(None, description="the divergence allowed; none: a fixed threshold is set")
    threshold: float = Field(description="uncertainty above which a token is asked about")
    usage: Usage = Field(description="of these answers together")
    recent: RecentFigures | None = Field(None, description="over the agent's answers since its start")


class WorkerMetrics(Message):
    """`workers/{worker}/metrics`: at a slow beat, counted since the start."""

    drafts: Count = Field(0, description="drafts judged, those sent for their audit alone included")
    accepted: Count = Field(0, description="tokens in doubt that were kept")
    recovered: Count = Field(0, description="tokens in doubt that were replaced")
    audited_tokens: Count = Field(0, description="tokens of runs whose rejection probability was sent back")
    target_tokens: Count = Field(0, description="tokens that went through the target model")
    target_passes: Count = Field(0, description="passes of the target model that they took")
    opened: Count = Field(0, description="sessions opened")
    evicted: Count = Field(0, description="sessions evicted for others")
    resynced: Count = Field(0, description="drafts that did not follow on what was known")
    refused: Count = Field(0, description="sessions or drafts refused, with a reason")
    dropped: dict[str, Count] = Field(default_factory=dict, description="messages not taken, by reason")


class ChatMessage(Message):
    """One turn of a conversation; the roles are those of the model's chat template."""

    role: str = Field(min_length=1, max_length=32, description="`user`, `assistant`, `system` as a rule")
    content: str = Field(description="what was said")


class Prompt(Message):
    """`agents/{agent}/prompt`: a question, as plain text or as the turns of a conversation."""

    # What `_one_question` checks, for those who read the JSON Schema alone.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["text"], "properties": {"text": {"type": "string"}}},
                {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
            ],
            "if": {"required": ["raw"], "properties": {"raw": {"const": True}}},
            "then": {"required": ["text"], "properties": {"text": {"type": "string"}}},
        }
    )

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="names the completion's topic")
    text: str | None = Field(None, description="one user turn")
    # Lists fail fast: 100,000 wrong turns would take half a second to complain about.
    messages: tuple[ChatMessage, ...] | None = Field(
        None, fail_fast=True, min_length=1, max_length=MAX_TURNS, description="all turns; instead of `text`"
    )
    raw: bool = Field(False, description="continue `text` itself instead of answering it as a chat")
    max_tokens: int | None = Field(
        None, ge=1, le=MAX_ANSWER_TOKENS, description="tokens the answer may have; none: as the agent is set"
    )
    sampling: SamplingParameters | None = Field(None, description="instead of the agent's own")
    seed: int | None = Field(None, ge=0, lt=2**64, description="makes the answer repeatable")
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
    text: str = Field("", description="what follows on the piece before")
    finish_reason: Literal["stop", "length", "error"] | None = Field(
        None, description="why the answer ended; none: more is to come"
    )
    error: str | None = Field(None, description="what went wrong, in one line, where that is the reason")
    usage: Usage | None = Field(None, description="what the answer was made of; on the last piece")


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
