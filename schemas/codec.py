"""Frames to bytes and back. In: frames, or untrusted bytes. Out: the other; decoding raises only WireError.

docs/protocol.md shows every frame byte by byte. All begin with one byte, version in the upper and kind in the
lower four bits, and one of flags. Integers are varints, ids and weights stand in columns.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from schemas import frames
from schemas.codebook import MARK_BYTES
from schemas.compression import BodyCodec
from schemas.distribution import MAX_K, WEIGHT_SUM, TruncatedDistribution
from schemas.errors import OutOfRange, TooLarge, Truncated, UnknownCodebook, UnknownKind, UnsupportedVersion
from schemas.frames import Doubt, Draft, Open, Outcome, Ready, Refused, Resync, Verdict
from schemas.packing import Reader, Writer, deltas, from_deltas
from schemas.sampling import SamplingParameters
from schemas.vocabulary import DIGEST_BYTES, Fingerprint

VERSION = 1
MAX_FRAME_BYTES = 1 << 18

_OPEN, _ASK, _AUDIT, _VERDICT, _READY, _REFUSED, _RESYNC = range(1, 8)
# Flags: of all that goes from agent to worker, of openings, of drafts, of verdicts.
_COMPRESSED = 0b001
_NAMES_CODEBOOK = 0b010
_FINAL, _BY_CODEBOOK = 0b010, 0b100
_OUTCOME_BITS, _HAS_TOKEN = 0b011, 0b100
_SAMPLING = struct.Struct("<ddId")  # temperature, top-p, top-k (0: all), min-p
_MAX_SESSION_BYTES = 5
_SEED = struct.Struct("<Q")
# What would break a reason out of its line, or a terminal out of its colours.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def encode_open(opening: Open, codec: BodyCodec) -> bytes:
    """An opening's frame; its prompt is the compressed body. A codebook is named for all of the session."""
    packed, compressed = codec.pack(opening_body(opening.prompt_ids, codec))
    frame = _begin(_OPEN, _COMPRESSED * compressed | _NAMES_CODEBOOK * (codec.mark is not None))
    frame.varint(opening.session)
    frame.raw(codec.mark or b"")
    frame.varint(opening.vocabulary.num_tokens)
    frame.raw(opening.vocabulary.digest)
    sampling = opening.sampling
    frame.raw(_SAMPLING.pack(sampling.temperature, sampling.top_p, sampling.top_k or 0, sampling.min_p))
    frame.raw(_SEED.pack(opening.seed))
    frame.varint(opening.max_length)
    frame.raw(packed)
    return bytes(frame.buffer)


def opening_body(prompt_ids: Sequence[int], codec: BodyCodec) -> bytes:
    """The body of an opening before it is compressed: what a dictionary is trained on."""
    body = Writer()
    body.varint(len(prompt_ids))
    body.varints(codec.ranks(prompt_ids))
    return bytes(body.buffer)


def decode_open(data: bytes, codec: BodyCodec) -> Open:
    """An opening from its frame. Raises UnknownCodebook unless the codec is the one it names (`read_mark`)."""
    reader, kind, flags = _begin_reading(data, known_flags=_COMPRESSED | _NAMES_CODEBOOK)
    if kind != _OPEN:
        raise UnknownKind("kind", f"{kind} is not an opening", 0)
    session = reader.varint("session", 0, frames.MAX_SESSION)
    mark = reader.raw("codebook", MARK_BYTES) if flags & _NAMES_CODEBOOK else None
    if mark != codec.mark:
        raise UnknownCodebook("codebook", f"{_hex(mark)} is named, {_hex(codec.mark)} is at hand")
    num_tokens = reader.varint("vocabulary size", 1, frames.MAX_TOKEN_ID + 1)
    vocabulary = Fingerprint(num_tokens, reader.raw("vocabulary digest", DIGEST_BYTES))
    sampling = _read_sampling(reader)
    (seed,) = _SEED.unpack(reader.raw("seed", _SEED.size))
    max_length = reader.varint("maximum length", 1, frames.MAX_POSITION)
    body = Reader(codec.unpack(reader.rest(), compressed=bool(flags & _COMPRESSED)))
    count = body.varint("prompt length", 1, min(frames.MAX_PROMPT, max_length))
    prompt_ids = _read_ids(body, "prompt ids", count, codec, num_tokens)
    body.end()
    return Open(session, vocabulary, sampling, seed, max_length, prompt_ids)


def encode_draft(draft: Draft, codec: BodyCodec) -> bytes:
    """A draft's frame; run and distribution are the compressed body."""
    packed, compressed = codec.pack(draft_body(draft, codec))
    kind = _AUDIT if draft.doubt is None else _ASK
    flags = _COMPRESSED * compressed | _FINAL * draft.final | _BY_CODEBOOK * (codec.mark is not None)
    frame = _begin(kind, flags)
    frame.varint(draft.session)
    frame.varint(draft.epoch)
    frame.varint(draft.position)
    if draft.doubt is not None:
        frame.varint(draft.doubt.deadline_ms)
    frame.raw(packed)
    return bytes(frame.buffer)


def draft_body(draft: Draft, codec: BodyCodec) -> bytes:
    """The body of a draft before it is compressed."""
    assert len(draft.run_ids) == len(draft.run_weights)
    body = Writer()
    body.varint(len(draft.run_ids))
    body.varints(codec.ranks(draft.run_ids))
    body.raw(bytes(weight - 1 for weight in draft.run_weights))
    if draft.doubt is not None:
        _write_distribution(body, draft.doubt, codec)
    return bytes(body.buffer)


def decode_draft(data: bytes, codec: BodyCodec, num_tokens: int = frames.MAX_TOKEN_ID + 1) -> Draft:
    """A draft from its frame; ids must lie below `num_tokens`, the vocabulary that both ends share.

    Which codebook is said by the session's opening. Raises UnknownCodebook where the frame was written by one
    (`is_by_codebook`) and the codec is none, or the reverse.
    """
    reader, kind, flags = _begin_reading(data, known_flags=_COMPRESSED | _FINAL | _BY_CODEBOOK)
    if kind not in (_ASK, _AUDIT):
        raise UnknownKind("kind", f"{kind} is not a draft", 0)
    if bool(flags & _BY_CODEBOOK) != (codec.mark is not None):
        raise UnknownCodebook("codebook", f"{_hex(codec.mark)} is the session's, which the draft denies")
    session = reader.varint("session", 0, frames.MAX_SESSION)
    epoch = reader.varint("epoch", 0, frames.MAX_EPOCH)
    position = reader.varint("position", 1, frames.MAX_POSITION)
    deadline_ms = reader.varint("deadline", 0, frames.MAX_DEADLINE_MS) if kind == _ASK else 0
    body = Reader(codec.unpack(reader.rest(), compressed=bool(flags & _COMPRESSED)))
    room = frames.MAX_POSITION - position - (kind == _ASK)
    count = body.varint("run length", 0, min(frames.MAX_RUN, room))
    run_ids = _read_ids(body, "run ids", count, codec, num_tokens)
    run_weights = tuple(byte + 1 for byte in body.raw("run weights", count))
    doubt = _read_distribution(body, deadline_ms, codec, num_tokens) if kind == _ASK else None
    body.end()
    return Draft(session, epoch, position, run_ids, run_weights, doubt, final=bool(flags & _FINAL))


def encode_worker_frame(frame: frames.WorkerFrame) -> bytes:
    """The frame of a verdict, a readiness, a refusal or a resync."""
    match frame:
        case Verdict():
            writer = _begin(_VERDICT, frame.outcome.value | _HAS_TOKEN * (frame.token_id is not None))
            writer.varints((frame.session, frame.epoch, frame.position))
            if frame.token_id is not None:
                writer.varint(frame.token_id)
            writer.raw(frame.betas)
        case Ready():
            writer = _begin(_READY, 0)
            writer.varints((frame.session, frame.known))
        case Refused():
            writer = _begin(_REFUSED, 0)
            writer.varint(frame.session)
            writer.block(_cut(frame.reason))
        case _:
            writer = _begin(_RESYNC, 0)
            writer.varints((frame.session, frame.epoch, frame.known))
    return bytes(writer.buffer)


def decode_worker_frame(data: bytes, num_tokens: int = frames.MAX_TOKEN_ID + 1) -> frames.WorkerFrame:
    """What a worker sent; a token must lie below `num_tokens`, the agent's vocabulary.

    The number of `betas` is for the agent to check: it knows what it asked.
    """
    reader, kind, flags = _begin_reading(data, known_flags=_OUTCOME_BITS | _HAS_TOKEN)
    if kind != _VERDICT and flags:
        raise UnknownKind("flags", f"{flags:#04x} on a frame without flags", 1)
    if kind not in (_VERDICT, _READY, _REFUSED, _RESYNC):
        raise UnknownKind("kind", f"{kind} is not sent by a worker", 0)
    session = reader.varint("session", 0, frames.MAX_SESSION)
    if kind == _VERDICT:
        return _read_verdict(reader, session, flags, num_tokens)
    result: Ready | Refused | Resync
    if kind == _READY:
        result = Ready(session, reader.varint("known", 0, frames.MAX_POSITION))
    elif kind == _REFUSED:
        result = Refused(session, _read_text(reader))
    else:
        epoch = reader.varint("epoch", 0, frames.MAX_EPOCH)
        result = Resync(session, epoch, reader.varint("known", 0, frames.MAX_POSITION))
    reader.end()
    return result


def peek_session(data: bytes) -> int | None:
    """The session that a broken agent frame seems to be about, so that a refusal can reach its sender."""
    try:
        return Reader(data[2:16]).varint("session", 0, frames.MAX_SESSION)
    except (Truncated, OutOfRange):
        return None


def _hex(mark: bytes | None) -> str:
    return "none" if mark is None else mark.hex()


def read_mark(opening: bytes) -> bytes | None:
    """The mark of the codebook that an opening names, unchecked otherwise; None where it names none."""
    if len(opening) < 2 or opening[0] & 0xF != _OPEN or not opening[1] & _NAMES_CODEBOOK:
        return None
    reader = Reader(opening[2 : 2 + _MAX_SESSION_BYTES + MARK_BYTES])
    reader.varint("session", 0, frames.MAX_SESSION)
    return reader.raw("codebook", MARK_BYTES)


def is_by_codebook(draft: bytes) -> bool:
    """Whether a draft was written by its session's codebook; unchecked otherwise."""
    return len(draft) >= 2 and draft[0] & 0xF in (_ASK, _AUDIT) and bool(draft[1] & _BY_CODEBOOK)


def _begin(kind: int, flags: int) -> Writer:
    writer = Writer()
    writer.raw(bytes((VERSION << 4 | kind, flags)))
    return writer


def _begin_reading(data: bytes, *, known_flags: int) -> tuple[Reader, int, int]:
    if len(data) > MAX_FRAME_BYTES:
        raise TooLarge("frame", f"{len(data)} bytes, at most {MAX_FRAME_BYTES}")
    reader = Reader(data)
    first, flags = reader.raw("frame header", 2)
    if first >> 4 != VERSION:
        raise UnsupportedVersion("version", f"{first >> 4}, this side speaks {VERSION}", 0)
    if flags & ~known_flags:
        raise UnknownKind("flags", f"{flags:#04x}", 1)
    return reader, first & 0xF, flags


def _read_ids(body: Reader, what: str, count: int, codec: BodyCodec, num_tokens: int) -> tuple[int, ...]:
    """A column of token ids, each below `num_tokens`; a rank may be above and its id below, or the reverse."""
    highest = num_tokens - 1 if codec.mark is None else frames.MAX_TOKEN_ID
    start = body.offset
    ids = codec.ids(body.varints(what, count, 0, highest))
    _check_ids(what, ids, num_tokens, start)
    return tuple(ids)


def _check_ids(what: str, ids: Sequence[int], num_tokens: int, offset: int) -> None:
    if ids and (largest := max(ids)) >= num_tokens:
        raise OutOfRange(what, f"{largest} is not below {num_tokens}", offset)


def _write_distribution(body: Writer, doubt: Doubt, codec: BodyCodec) -> None:
    """k, ids or ranks as gaps, all weights but the last, which the sum tells, and the draft token's index.

    Everything in the order of what travels: by rank where there is a codebook.
    """
    q_hat = doubt.q_hat
    ranks = codec.ranks(q_hat.token_ids.tolist())
    order = sorted(range(q_hat.k), key=ranks.__getitem__)
    weights = q_hat.weights.tolist()
    body.varint(q_hat.k)
    body.varints(deltas([ranks[index] for index in order]))
    if q_hat.k > 1:
        body.raw(bytes(weights[index] - 1 for index in order[:-1]))
        body.raw(bytes((order.index(doubt.drawn_index),)))


def _read_distribution(body: Reader, deadline_ms: int, codec: BodyCodec, num_tokens: int) -> Doubt:
    k = body.varint("k", 1, min(MAX_K, num_tokens))
    start = body.offset
    ranks = from_deltas(body.varints("distribution ids", k, 0, frames.MAX_TOKEN_ID))
    if ranks[-1] > frames.MAX_TOKEN_ID:
        raise OutOfRange("distribution ids", f"{ranks[-1]} is not below {frames.MAX_TOKEN_ID + 1}", start)
    token_ids = codec.ids(ranks)
    _check_ids("distribution ids", token_ids, num_tokens, start)
    start = body.offset
    weights = [byte + 1 for byte in body.raw("distribution weights", k - 1)]
    last = WEIGHT_SUM - sum(weights)
    if last < 1:
        raise OutOfRange("distribution weights", f"leave {last} of {WEIGHT_SUM} for the last token", start)
    index = body.raw("draft token", 1)[0] if k > 1 else 0
    if index >= k:
        raise OutOfRange("draft token", f"index {index} is not below {k}", body.offset - 1)
    order = np.argsort(token_ids)  # by id, whatever order they came in
    sent_weights = np.array([*weights, last], np.uint16)
    q_hat = TruncatedDistribution(np.array(token_ids, np.int32)[order], sent_weights[order])
    return Doubt(q_hat, int(np.flatnonzero(order == index)[0]), deadline_ms)


def _read_sampling(reader: Reader) -> SamplingParameters:
    start = reader.offset
    temperature, top_p, top_k, min_p = _SAMPLING.unpack(reader.raw("sampling", _SAMPLING.size))
    try:
        return SamplingParameters(temperature=temperature, top_p=top_p, top_k=top_k or None, min_p=min_p)
    except ValidationError as error:
        problem = error.errors()[0]
        raise OutOfRange("sampling", f"{problem['loc'][0]}: {problem['msg']}", start) from error


def _read_verdict(reader: Reader, session: int, flags: int, num_tokens: int) -> Verdict:
    epoch = reader.varint("epoch", 0, frames.MAX_EPOCH)
    position = reader.varint("position", 1, frames.MAX_POSITION)
    try:
        outcome = Outcome(flags & _OUTCOME_BITS)
    except ValueError as error:
        raise UnknownKind("outcome", str(flags & _OUTCOME_BITS), 1) from error
    has_token = bool(flags & _HAS_TOKEN)
    if (outcome is Outcome.RECOVERED and not has_token) or (outcome is Outcome.AUDITED and has_token):
        raise UnknownKind("flags", f"{flags:#04x}: {outcome.name} and its token do not go together", 1)
    token_id = reader.varint("token", 0, num_tokens - 1) if has_token else None
    betas = reader.rest()
    if len(betas) > frames.MAX_RUN + 1:
        raise TooLarge("betas", f"{len(betas)} bytes, at most {frames.MAX_RUN + 1}")
    if outcome is not Outcome.AUDITED and not betas:
        raise Truncated("betas", "that of the token in doubt is missing", reader.offset)
    return Verdict(session, epoch, position, outcome, token_id, betas)


def _read_text(reader: Reader) -> str:
    start = reader.offset
    try:
        text = reader.block("reason", frames.MAX_REASON_BYTES).decode()
    except UnicodeDecodeError as error:
        raise OutOfRange("reason", "not UTF-8", start) from error
    if _CONTROL.search(text):
        raise OutOfRange("reason", "holds control characters", start)
    return text


def _cut(text: str) -> bytes:
    """One line of UTF-8, of at most MAX_REASON_BYTES, never ending inside a character."""
    line = _CONTROL.sub(" ", text).encode(errors="replace")  # a file name may hold a lone surrogate
    return line[: frames.MAX_REASON_BYTES].decode(errors="ignore").encode()
