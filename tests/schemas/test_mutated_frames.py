"""Over 100,000 mutated frames at each decoder: a frame comes out, or a WireError, and never anything else.

The mutator is random and seeded: a failure names the seed, and HUNCH_MUTATION_SEED repeats it. What is still
taken after a mutation must mean the same when it is sent on.
"""

from __future__ import annotations

import functools
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import zstandard

from schemas import codec
from schemas.codebook import Codebook
from schemas.compression import BodyCodec
from schemas.distribution import TruncatedDistribution
from schemas.errors import (
    BadCompression,
    OutOfRange,
    TooLarge,
    TrailingBytes,
    Truncated,
    UnknownCodebook,
    UnknownKind,
    UnsupportedVersion,
    WireError,
)
from schemas.frames import Doubt, Draft, Open, Outcome, Ready, Refused, Resync, Verdict
from schemas.messages import (
    AgentMetrics,
    AgentStatus,
    ChatMessage,
    Completion,
    Message,
    Presence,
    Prompt,
    Usage,
    VocabularyMark,
    WorkerMetrics,
    WorkerStatus,
    parse_message,
)
from schemas.packing import Writer
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

NUM_FRAMES = 101_000
SEED = int(os.environ.get("HUNCH_MUTATION_SEED", random.SystemRandom().getrandbits(32)))
NUM_TOKENS = 5000
BODY_CODEC = BodyCodec()
RANKED_IDS = tuple(random.Random(2).sample(range(NUM_TOKENS), 900))
CODEBOOK = Codebook(random.Random(1).randbytes(500), RANKED_IDS)
# Small bodies are left raw by our own codec; this one compresses all, so that zstd is always on the way.
FORCED = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters.from_level(
        3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=True
    )
)

# ------------------------------------------------------------------------------------- valid frames


@dataclass(frozen=True)
class Sample:
    """A valid frame: its bytes before the body and the body itself, uncompressed.

    `lengths` are the offsets, in header + body, of the fields that say how many of something follow.
    """

    header: bytes
    body: bytes
    lengths: tuple[int, ...] = ()

    @property
    def data(self) -> bytes:
        return self.header + self.body


class _Uncompressed(BodyCodec):
    """Remembers how long the last body was."""

    body_bytes = 0

    def pack(self, body: bytes) -> tuple[bytes, bool]:
        self.body_bytes = len(body)
        return body, False


class _UncompressedByCodebook(_Uncompressed, Codebook):
    """The same with ranks and a mark."""


def _varint_size(*values: int) -> int:
    writer = Writer()
    writer.varints(values)
    return len(writer.buffer)


def _uncompressed(codec: BodyCodec) -> _Uncompressed:
    """One that writes what `codec` would, but for its compression."""
    if isinstance(codec, Codebook):
        return _UncompressedByCodebook(random.Random(1).randbytes(500), RANKED_IDS)
    return _Uncompressed()


def random_opening(rng: random.Random, bodies: BodyCodec = BODY_CODEC) -> Sample:
    ids = tuple(rng.randrange(NUM_TOKENS) for _ in range(rng.choice((1, 5, 40))))
    sampling = SamplingParameters(
        temperature=rng.choice((0.0, 0.7, 10.0)),
        top_k=rng.choice((None, 1, 40)),
        top_p=rng.choice((0.01, 0.9, 1.0)),
        min_p=rng.choice((0.0, 0.5, 1.0)),
    )
    vocabulary = Fingerprint(NUM_TOKENS, rng.randbytes(16))
    opening = Open(rng.getrandbits(32), vocabulary, sampling, rng.getrandbits(64), 4096, ids)
    uncompressed = _uncompressed(bodies)
    data = codec.encode_open(opening, uncompressed)
    start = len(data) - uncompressed.body_bytes
    return Sample(data[:start], data[start:], (start,))


def random_draft(rng: random.Random, bodies: BodyCodec = BODY_CODEC) -> Sample:
    run = tuple(rng.randrange(NUM_TOKENS) for _ in range(rng.choice((0, 1, 6, 64))))
    run_weights = tuple(rng.randint(1, 256) for _ in run)
    doubt = None
    if rng.random() < 0.7:
        k = rng.choice((1, 2, 8, 30))
        weights = np.diff([0, *sorted(rng.sample(range(1, 256), k - 1)), 256]).astype(np.uint16)
        token_ids = np.array(sorted(rng.sample(range(NUM_TOKENS), k)), np.int32)
        doubt = Doubt(TruncatedDistribution(token_ids, weights), rng.randrange(k), rng.choice((50, 2000)))
    session, epoch, position = rng.getrandbits(rng.choice((7, 32))), rng.randrange(9), rng.randint(1, 4000)
    draft = Draft(session, epoch, position, run, run_weights, doubt, rng.random() < 0.2)
    uncompressed = _uncompressed(bodies)
    data = codec.encode_draft(draft, uncompressed)
    start = len(data) - uncompressed.body_bytes
    k_at = start + _varint_size(len(run), *bodies.ranks(run)) + len(run)
    return Sample(data[:start], data[start:], (start,) if doubt is None else (start, k_at))


def random_worker_frame(rng: random.Random) -> Sample:
    session, epoch, position = rng.getrandbits(rng.choice((7, 32))), rng.randrange(9), rng.randint(1, 4000)
    token_id, betas = rng.randrange(NUM_TOKENS), rng.randbytes(rng.choice((1, 3, 65)))
    frame = rng.choice(
        (
            Verdict(session, epoch, position, Outcome.ACCEPTED, token_id, betas),
            Verdict(session, epoch, position, Outcome.ACCEPTED, None, betas),
            Verdict(session, epoch, position, Outcome.RECOVERED, token_id, betas),
            Verdict(session, epoch, position, Outcome.AUDITED, None, betas),
            Ready(session, position),
            Refused(session, rng.choice(("", "all 16 sessions are at work", "größer als erlaubt " * 5))),
            Resync(session, epoch, position),
        )
    )
    data = codec.encode_worker_frame(frame)
    lengths = (2 + _varint_size(session),) if isinstance(frame, Refused) else ()
    return Sample(data, b"", lengths)


def random_message(rng: random.Random) -> tuple[type[Message], Sample]:
    mark = VocabularyMark(num_tokens=rng.randint(1, 200_000), digest=rng.randbytes(16).hex())
    usage = Usage(
        tokens=rng.randrange(300), bytes_up=rng.getrandbits(30), seconds=rng.random(), divergence=rng.random()
    )
    sampling = rng.choice((None, SamplingParameters(temperature=0.5, top_k=40, top_p=0.9, min_p=0.1)))
    question: dict[str, Any] = rng.choice(
        (
            {"text": 'What is it?\n"Quoted" 🦉'},
            {"text": "Once upon", "raw": True},
            {
                "messages": (
                    ChatMessage(role="system", content="x"),
                    ChatMessage(role="user", content="ä\u2028"),
                )
            },
        )
    )
    message = rng.choice(
        (
            Prompt(
                id="q-1", **question, max_tokens=20, sampling=sampling, seed=2**64 - 1, stop=("\n", "END")
            ),
            AgentStatus(state=Presence.ONLINE, boot=rng.getrandbits(40), model="m", worker="w", note="none"),
            WorkerStatus(
                state=Presence.ONLINE, boot=1, vocabulary=mark, beat_s=5, n_ctx=768, load=rng.random()
            ),
            Prompt(id="q-2", **question),
            AgentMetrics(request_id="q-1", risk=0.02, threshold=rng.random(), usage=usage),
            WorkerMetrics(drafts=rng.getrandbits(20), dropped={"Truncated": 3, "unknown topic": 1}),
            Completion(index=7, text="…", finish_reason="stop", usage=usage),
        )
    )
    return type(message), Sample(message.to_bytes(), b"")


# ------------------------------------------------------------------------------------------ mutations

EDGE_BYTES = bytes((0x00, 0x01, 0x7F, 0x80, 0x81, 0xFE, 0xFF))


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_byte(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.choice(EDGE_BYTES)


def insert_bytes(data: bytearray, rng: random.Random) -> None:
    at = rng.randint(0, len(data))
    # Once in a while more than any field may hold.
    data[at:at] = rng.randbytes(rng.randint(1, 4) if rng.random() < 0.99 else 4200)


def delete_bytes(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 4)]


def repeat_bytes(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 8)]


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


MUTATIONS = (flip_bits, set_byte, insert_bytes, delete_bytes, repeat_bytes, truncate)


def splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


def change_length(data: bytearray, lengths: tuple[int, ...], rng: random.Random) -> None:
    """Let a length field say something else: a bit more or less, or anything up to 64 bits."""
    at = rng.choice(lengths)
    writer = Writer()
    near = (data[at] + rng.choice((-1, 1))) % 0x80
    writer.varint(near if rng.random() < 0.5 else rng.getrandbits(rng.choice((7, 9, 13, 24, 32, 64))))
    data[at : at + 1] = writer.buffer


def mutate(sample: Sample, other: Sample, rng: random.Random) -> bytes:
    """A sample damaged in one to three ways; its body, half the time, before it is compressed."""
    data = bytearray(sample.data)
    kept = len(sample.header) if sample.body and rng.random() < 0.5 else 0
    if sample.lengths and rng.random() < 0.2:
        change_length(data, sample.lengths, rng)
    else:
        del data[:kept]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if rng.random() < 0.15:
                splice(data, other.data[kept:], rng)
            elif data:
                rng.choice(MUTATIONS)(data, rng)
        data[:0] = sample.header[:kept]
    if not kept or rng.random() < 0.3:
        return bytes(data)
    data[kept:] = FORCED.compress(bytes(data[kept:]))
    data[1] |= 1
    if rng.random() < 0.3:  # and what zstd is given, too
        rest = data[kept:]
        rng.choice(MUTATIONS)(rest, rng)
        data[kept:] = rest
    return bytes(data)


HOSTILE_JSON = [
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1",
        b"0.5",
        b"9" * 400,
        b"1" * 5000,
        b"18446744073709551616",
        b"true",
    ),
    *(
        b"null",
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\xff"',
        b'"a/b"',
        b'"' + b"x" * 600 + b'"',
        b"[]",
        b"{}",
    ),
    *(b"[" * 300, b'{"a":' * 300, b"[" * 150 + b"]" * 150, b'{"a":1,"a":2}', b"[" + b"0," * 3000 + b"0]"),
]
JSON_VALUE = re.compile(rb'(?<=[:,\[])("(?:[^"\\]|\\.)*"|[-\w.]+|\[[^\[\]]*\]|\{[^{}]*\})')


def mutate_json(sample: Sample, other: Sample, rng: random.Random) -> bytes:
    """A message with a value replaced by a nasty one, or damaged like any other bytes."""
    if rng.random() < 0.5:
        return mutate(sample, other, rng)
    if rng.random() < 0.001:
        return sample.data + b" " * (1 << 18)
    values = list(JSON_VALUE.finditer(sample.data))
    for value in rng.sample(values, rng.randint(1, 2)):
        start, end = value.span()
        return sample.data[:start] + rng.choice((*HOSTILE_JSON, other.data)) + sample.data[end:]
    return sample.data


# ---------------------------------------------------------------------------------------- the attack


@dataclass(frozen=True)
class Target:
    """A decoder, what it is given, and which errors it is to be driven to."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    sample: Callable[[random.Random], Sample]
    errors: frozenset[type[WireError]]


ALL_ERRORS = frozenset(WireError.__subclasses__())
TARGETS = {
    "decode_open": Target(
        lambda data: codec.decode_open(data, BODY_CODEC),
        lambda frame: codec.encode_open(frame, BODY_CODEC),
        random_opening,
        ALL_ERRORS,
    ),
    "decode_draft": Target(
        lambda data: codec.decode_draft(data, BODY_CODEC, NUM_TOKENS),
        lambda frame: codec.encode_draft(frame, BODY_CODEC),
        random_draft,
        ALL_ERRORS,
    ),
    "decode_open by codebook": Target(
        lambda data: codec.decode_open(data, CODEBOOK),
        lambda frame: codec.encode_open(frame, CODEBOOK),
        lambda rng: random_opening(rng, CODEBOOK),
        ALL_ERRORS,
    ),
    "decode_draft by codebook": Target(
        lambda data: codec.decode_draft(data, CODEBOOK, NUM_TOKENS),
        lambda frame: codec.encode_draft(frame, CODEBOOK),
        lambda rng: random_draft(rng, CODEBOOK),
        ALL_ERRORS,
    ),
    "decode_worker_frame": Target(
        codec.decode_worker_frame,
        codec.encode_worker_frame,
        random_worker_frame,
        ALL_ERRORS - {BadCompression, UnknownCodebook},
    ),
}


def plain(frame: Any) -> Any:
    """A frame in values that `==` compares, distributions included."""
    if not isinstance(frame, Draft) or frame.doubt is None:
        return frame
    doubt = frame.doubt
    values = {**vars(frame), "doubt": (doubt.drawn_index, doubt.deadline_ms)}
    return values, doubt.q_hat.token_ids.tolist(), doubt.q_hat.weights.tolist()


def attempt(data: bytes, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> type:
    """What came out: the type of the frame or of the WireError; anything else fails the test by name."""
    try:
        try:
            frame = decode(data)
        except WireError as error:
            return type(error)
        assert plain(decode(encode(frame))) == plain(frame), "it means something else when it is sent on"
    except Exception as error:
        raise AssertionError(f"HUNCH_MUTATION_SEED={SEED}: {data[:2000].hex()} gave {error!r}") from error
    return type(frame)


@pytest.mark.parametrize("name", TARGETS)
def test_a_mutated_frame_gives_a_frame_or_a_wire_error(name):
    target, rng = TARGETS[name], random.Random(f"{SEED} {name}")
    samples = [target.sample(rng) for _ in range(300)]
    foreign = [other.sample(rng) for other in TARGETS.values() if other is not target for _ in range(50)]
    outcomes: Counter[type] = Counter()
    for number in range(NUM_FRAMES):
        sample = rng.choice(foreign if number % 20 == 0 else samples)
        data = mutate(sample, rng.choice(samples), rng)
        outcomes[attempt(data, target.decode, target.encode)] += 1
    assert outcomes.total() >= 100_000
    assert target.errors <= set(outcomes), f"HUNCH_MUTATION_SEED={SEED}: {outcomes}"
    decoded = sum(count for kind, count in outcomes.items() if not issubclass(kind, WireError))
    assert decoded > 2_000, f"HUNCH_MUTATION_SEED={SEED}: hardly anything was decoded: {outcomes}"


def test_a_mutated_message_gives_a_message_or_a_wire_error():
    rng = random.Random(f"{SEED} json")
    samples = [random_message(rng) for _ in range(700)]
    outcomes: Counter[type] = Counter()
    attacked: Counter[type] = Counter()
    for number in range(NUM_FRAMES):
        kind, sample = rng.choice(samples)
        other_kind, other = rng.choice(samples)
        parsed_as = other_kind if number % 20 == 0 else kind
        attacked[parsed_as] += 1
        data = mutate_json(sample, other, rng)
        outcomes[attempt(data, functools.partial(parse_message, parsed_as), parsed_as.to_bytes)] += 1
    assert outcomes.total() >= 100_000
    assert all(attacked[kind] > 10_000 for kind in (Prompt, AgentStatus, WorkerStatus))
    assert {OutOfRange, TooLarge} <= set(outcomes), f"HUNCH_MUTATION_SEED={SEED}: {outcomes}"
    for kind in (Prompt, AgentStatus, WorkerStatus, AgentMetrics, WorkerMetrics, Completion):
        assert outcomes[kind] > 100, f"HUNCH_MUTATION_SEED={SEED}: {outcomes}"


def test_the_errors_that_decoders_are_driven_to_are_all_there_are():
    errors = {Truncated, TrailingBytes, UnsupportedVersion, UnknownKind, OutOfRange, TooLarge, BadCompression}
    errors.add(UnknownCodebook)
    assert errors == ALL_ERRORS


def test_the_mutator_reaches_what_lies_behind_compression():
    rng = random.Random(1)
    sample = random_draft(rng)
    reached = [mutate(sample, sample, rng) for _ in range(500)]
    compressed = [
        data for data in reached if data.startswith(sample.header[:1]) and data[1:2] and data[1] & 1
    ]
    assert len(compressed) > 100


def test_the_attack_would_notice_another_error():
    def broken(_data: bytes) -> None:
        raise ValueError("not a WireError")

    with pytest.raises(AssertionError, match=f"HUNCH_MUTATION_SEED={SEED}: 1200 gave ValueError"):
        attempt(b"\x12\x00", broken, bytes)
