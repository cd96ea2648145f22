"""The papers' protocol as frames. In: values, or bytes. Out: the other; reading raises WireError.

They say what is computed, not what is sent; this is the least that their methods need: the prompt once; for each
token in doubt the ids kept since the last one, the draft token, and the entries of `q`; one token back.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from schemas.frames import MAX_PROMPT, MAX_SEED, MAX_TOKEN_ID
from schemas.packing import Reader, Writer

MAX_ANSWERS = 2**32 - 1
_TEMPERATURE = struct.Struct("<d")


@dataclass(frozen=True)
class Begin:
    """Edge to worker: a new answer. `streams`: the target is to write it alone, up to `max_tokens`."""

    answer: int
    streams: bool
    temperature: float
    seed: int
    max_tokens: int
    prompt_ids: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """The frame."""
        frame = Writer()
        frame.varints((self.answer, self.streams))
        frame.raw(_TEMPERATURE.pack(self.temperature))
        frame.varints((self.seed, self.max_tokens, len(self.prompt_ids), *self.prompt_ids))
        return bytes(frame.buffer)

    @classmethod
    def from_bytes(cls, data: bytes) -> Begin:
        """The value."""
        reader = Reader(data)
        answer = reader.varint("answer", 0, MAX_ANSWERS)
        streams = bool(reader.varint("streams", 0, 1))
        (temperature,) = _TEMPERATURE.unpack(reader.raw("temperature", _TEMPERATURE.size))
        seed = reader.varint("seed", 0, MAX_SEED)
        max_tokens = reader.varint("maximum", 1, MAX_PROMPT)
        count = reader.varint("prompt length", 1, MAX_PROMPT)
        prompt_ids = tuple(reader.varints("prompt ids", count, 0, MAX_TOKEN_ID))
        reader.end()
        return cls(answer, streams, temperature, seed, max_tokens, prompt_ids)


@dataclass(frozen=True)
class Upload:
    """Edge to worker: a token in doubt, after those kept since; `entries` as `upload.pack` makes them."""

    answer: int
    kept_ids: tuple[int, ...]
    token_id: int
    entries: bytes

    def to_bytes(self) -> bytes:
        """The frame."""
        frame = Writer()
        frame.varints((self.answer, len(self.kept_ids), *self.kept_ids, self.token_id))
        frame.raw(self.entries)
        return bytes(frame.buffer)

    @classmethod
    def from_bytes(cls, data: bytes) -> Upload:
        """The value."""
        reader = Reader(data)
        answer = reader.varint("answer", 0, MAX_ANSWERS)
        count = reader.varint("number kept", 0, MAX_PROMPT)
        kept_ids = tuple(reader.varints("kept ids", count, 0, MAX_TOKEN_ID))
        token_id = reader.varint("draft token", 0, MAX_TOKEN_ID)
        return cls(answer, kept_ids, token_id, reader.rest())


@dataclass(frozen=True)
class Reply:
    """Worker to edge: the next token."""

    answer: int
    token_id: int

    def to_bytes(self) -> bytes:
        """The frame."""
        frame = Writer()
        frame.varints((self.answer, self.token_id))
        return bytes(frame.buffer)

    @classmethod
    def from_bytes(cls, data: bytes) -> Reply:
        """The value."""
        reader = Reader(data)
        reply = cls(reader.varint("answer", 0, MAX_ANSWERS), reader.varint("token", 0, MAX_TOKEN_ID))
        reader.end()
        return reply
