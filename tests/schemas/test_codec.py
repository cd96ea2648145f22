"""Frames: golden bytes of every kind, every field back as it was, and whatever breaks a rule refused by name."""

from __future__ import annotations

import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import codec, frames
from schemas.codebook import Codebook
from schemas.compression import MAX_BODY_BYTES, BodyCodec
from schemas.distribution import MAX_K, TruncatedDistribution, one_hot
from schemas.errors import (
    BadCompression,
    OutOfRange,
    TooLarge,
    TrailingBytes,
    Truncated,
    UnknownKind,
    UnsupportedVersion,
    WireError,
)
from schemas.frames import Doubt, Draft, Open, Outcome, Ready, Refused, Resync, Verdict
from schemas.packing import Writer
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint
from tests.schemas.strategies import SAMPLING

PLAIN = BodyCodec()
CODECS = (PLAIN, BodyCodec(bytes(range(256)) * 4), Codebook(bytes(range(256)) * 4, (7, 2, 300, 70_000)))

# ------------------------------------------------------------------------------------------ strategies

SESSIONS = st.integers(0, frames.MAX_SESSION)
EPOCHS = st.integers(0, frames.MAX_EPOCH)
POSITIONS = st.integers(1, frames.MAX_POSITION - frames.MAX_RUN - 1)
TOKEN_IDS = st.integers(0, frames.MAX_TOKEN_ID) | st.integers(0, 300)
WEIGHTS = st.integers(1, 256)
# One line of text that UTF-8 can hold and the limit allows.
REASONS = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"),
    max_size=frames.MAX_REASON_BYTES // 4,
)


@st.composite
def openings(draw):
    num_tokens = draw(st.integers(1, frames.MAX_TOKEN_ID + 1))
    max_length = draw(st.integers(1, frames.MAX_POSITION))
    ids = st.lists(st.integers(0, num_tokens - 1), min_size=1, max_size=min(max_length, 60))
    return Open(
        draw(SESSIONS),
        Fingerprint(num_tokens, draw(st.binary(min_size=16, max_size=16))),
        draw(SAMPLING),
        draw(st.integers(0, frames.MAX_SEED)),
        max_length,
        tuple(draw(ids)),
    )


@st.composite
def distributions(draw):
    token_ids = sorted(draw(st.sets(TOKEN_IDS, min_size=1, max_size=draw(st.sampled_from([1, 8, MAX_K])))))
    cuts = st.sets(st.integers(1, 255), min_size=len(token_ids) - 1, max_size=len(token_ids) - 1)
    weights = np.diff([0, *sorted(draw(cuts)), 256])
    return TruncatedDistribution(np.array(token_ids, np.int32), weights.astype(np.uint16))


@st.composite
def doubts(draw):
    q_hat = draw(distributions())
    return Doubt(q_hat, draw(st.integers(0, q_hat.k - 1)), draw(st.integers(0, frames.MAX_DEADLINE_MS)))


@st.composite
def drafts(draw):
    run = draw(st.lists(st.tuples(TOKEN_IDS, WEIGHTS), max_size=70))
    return Draft(
        draw(SESSIONS),
        draw(EPOCHS),
        draw(POSITIONS),
        tuple(token_id for token_id, _ in run),
        tuple(weight for _, weight in run),
        draw(st.none() | doubts()),
        draw(st.booleans()),
    )


@st.composite
def verdicts(draw):
    outcome = draw(st.sampled_from(Outcome))
    token_ids = {
        Outcome.ACCEPTED: st.none() | TOKEN_IDS,
        Outcome.RECOVERED: TOKEN_IDS,
        Outcome.AUDITED: st.none(),
    }
    betas = st.binary(min_size=int(outcome is not Outcome.AUDITED), max_size=70)
    return Verdict(
        draw(SESSIONS), draw(EPOCHS), draw(POSITIONS), outcome, draw(token_ids[outcome]), draw(betas)
    )


READIES = st.builds(Ready, SESSIONS, st.integers(0, frames.MAX_POSITION))
REFUSALS = st.builds(Refused, SESSIONS, REASONS)
RESYNCS = st.builds(Resync, SESSIONS, EPOCHS, st.integers(0, frames.MAX_POSITION))


def plain(frame):
    """A frame in values that `==` compares, distributions included."""
    if not isinstance(frame, Draft) or frame.doubt is None:
        return frame
    doubt = frame.doubt
    assert doubt.q_hat.token_ids.dtype == np.int32
    assert doubt.q_hat.weights.dtype == np.uint16
    values = {**vars(frame), "doubt": (doubt.drawn_index, doubt.deadline_ms)}
    return values, doubt.q_hat.token_ids.tolist(), doubt.q_hat.weights.tolist()


def encode(frame, body_codec=PLAIN):
    match frame:
        case Open():
            return codec.encode_open(frame, body_codec)
        case Draft():
            return codec.encode_draft(frame, body_codec)
    return codec.encode_worker_frame(frame)


def decoder_of(frame):
    match frame:
        case Open():
            return decode_open
        case Draft():
            return decode_draft
    return codec.decode_worker_frame


def decode_open(data):
    return codec.decode_open(data, PLAIN)


def decode_draft(data):
    return codec.decode_draft(data, PLAIN)


DECODERS = (decode_open, decode_draft, codec.decode_worker_frame)

# -------------------------------------------------------------------------------------- golden bytes

GOLDEN = {
    "open": (
        Open(
            session=70_000,
            vocabulary=Fingerprint(151_936, bytes(range(16))),
            sampling=SamplingParameters(temperature=0.7, top_k=40, top_p=0.95, min_p=0.05),
            seed=2**64 - 2,
            max_length=2048,
            prompt_ids=(1, 300, 151_935),
        ),
        """11 00 f0a204 80a309 000102030405060708090a0b0c0d0e0f
        666666666666e63f 666666666666ee3f 28000000 9a9999999999a93f feffffffffffffff 8010
        03 01 ac02 ffa209""",
    ),
    "ask": (
        Draft(
            session=70_000,
            epoch=3,
            position=300,
            run_ids=(15, 2000),
            run_weights=(256, 90),
            doubt=Doubt(
                TruncatedDistribution(
                    np.array([17, 300, 301, 70_000], np.int32), np.array([6, 200, 40, 10], np.uint16)
                ),
                drawn_index=1,
                deadline_ms=250,
            ),
        ),
        "12 00 f0a204 03 ac02 fa01  02 0f d00f ff59  04 11 9a02 00 c2a004 05c727 01",
    ),
    "ask about one token, final": (
        Draft(70_000, 3, 300, (), (), Doubt(one_hot(42), 0, 250), final=True),
        "12 02 f0a204 03 ac02 fa01  00  01 2a",
    ),
    "audit": (
        Draft(70_000, 3, 300, (15, 2000, 9), (256, 90, 1), None, final=True),
        "13 02 f0a204 03 ac02  03 0f d00f 09 ff5900",
    ),
    "accepted with a bonus token": (
        Verdict(70_000, 3, 300, Outcome.ACCEPTED, 1234, b"\x00\x80\xff"),
        "14 04 f0a204 03 ac02 d209 0080ff",
    ),
    "accepted": (Verdict(70_000, 3, 300, Outcome.ACCEPTED, None, b"\xff"), "14 00 f0a204 03 ac02 ff"),
    "recovered": (Verdict(70_000, 3, 300, Outcome.RECOVERED, 7, b"\x00\x80"), "14 05 f0a204 03 ac02 07 0080"),
    "audited": (Verdict(70_000, 3, 300, Outcome.AUDITED, None, b"\x00\x80"), "14 02 f0a204 03 ac02 0080"),
    "ready": (Ready(70_000, 5), "15 00 f0a204 05"),
    "refused": (Refused(70_000, "full: très"), "16 00 f0a204 0b 66756c6c3a207472c3a873"),
    "resync": (Resync(70_000, 3, 300), "17 00 f0a204 03 ac02"),
}
EXAMPLES = {name: (frame, bytes.fromhex(data)) for name, (frame, data) in GOLDEN.items()}


@pytest.mark.parametrize(("frame", "data"), EXAMPLES.values(), ids=EXAMPLES)
def test_a_frame_has_exactly_these_bytes(frame, data):
    assert encode(frame).hex() == data.hex()
    assert plain(decoder_of(frame)(data)) == plain(frame)


def test_every_kind_of_frame_has_golden_bytes():
    assert {data[0] for _, data in EXAMPLES.values()} == {codec.VERSION << 4 | kind for kind in range(1, 8)}
    verdicts_shown = {frame.outcome for frame, _ in EXAMPLES.values() if isinstance(frame, Verdict)}
    assert verdicts_shown == set(Outcome)


def test_a_compressed_body_made_once_is_still_read():
    # 20 times the token 7 with weight 256; the bytes that another zstd makes of it may differ.
    data = bytes.fromhex("13 01 01 00 05 2029650000201407ffff0200c0c309c002")
    assert decode_draft(data) == Draft(1, 0, 5, (7,) * 20, (256,) * 20, None)


def test_a_one_hot_distribution_costs_no_weights_and_no_index():
    with_one = encode(Draft(1, 0, 5, (), (), Doubt(one_hot(42), 0, 100)))
    audit = encode(Draft(1, 0, 5, (), (), None))
    assert len(with_one) - len(audit) == 3  # deadline, k, id


# --------------------------------------------------------------------------------------- round trips


@given(openings(), st.sampled_from(CODECS))
def test_every_field_of_an_opening_comes_back(opening, body_codec):
    assert codec.decode_open(codec.encode_open(opening, body_codec), body_codec) == opening


@given(drafts(), st.sampled_from(CODECS))
@example(Draft(0, 0, 1, (), (), None), PLAIN)
def test_every_field_of_a_draft_comes_back(draft, body_codec):
    data = codec.encode_draft(draft, body_codec)
    assert plain(codec.decode_draft(data, body_codec)) == plain(draft)


@given(verdicts() | READIES | REFUSALS | RESYNCS)
def test_every_field_of_a_worker_frame_comes_back(frame):
    assert codec.decode_worker_frame(codec.encode_worker_frame(frame)) == frame


@given(drafts())
def test_ids_may_be_numpy_integers_and_the_bytes_do_not_differ(draft):
    ids = tuple(np.array(draft.run_ids, np.int32))
    assert encode(Draft(**{**vars(draft), "run_ids": ids})) == encode(draft)


@pytest.mark.parametrize(
    "frame",
    [
        Draft(
            frames.MAX_SESSION,
            frames.MAX_EPOCH,
            frames.MAX_POSITION - frames.MAX_RUN - 1,
            (frames.MAX_TOKEN_ID,) * frames.MAX_RUN,
            (1, 256) * (frames.MAX_RUN // 2),
            Doubt(
                TruncatedDistribution(
                    np.arange(frames.MAX_TOKEN_ID - MAX_K + 1, frames.MAX_TOKEN_ID + 1, dtype=np.int32),
                    np.ones(MAX_K, np.uint16),
                ),
                MAX_K - 1,
                frames.MAX_DEADLINE_MS,
            ),
            final=True,
        ),
        Open(
            frames.MAX_SESSION,
            Fingerprint(frames.MAX_TOKEN_ID + 1, b"\xff" * 16),
            SamplingParameters(temperature=10, top_k=2**20, top_p=1, min_p=1),
            frames.MAX_SEED,
            frames.MAX_POSITION,
            (frames.MAX_TOKEN_ID,) * frames.MAX_PROMPT,
        ),
        Verdict(
            frames.MAX_SESSION,
            frames.MAX_EPOCH,
            frames.MAX_POSITION,
            Outcome.RECOVERED,
            frames.MAX_TOKEN_ID,
            b"\xff" * (frames.MAX_RUN + 1),
        ),
        Refused(frames.MAX_SESSION, "x" * frames.MAX_REASON_BYTES),
        Ready(frames.MAX_SESSION, frames.MAX_POSITION),
        Resync(frames.MAX_SESSION, frames.MAX_EPOCH, frames.MAX_POSITION),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_the_largest_value_of_every_field_comes_back(frame):
    data = encode(frame)
    assert len(data) <= codec.MAX_FRAME_BYTES
    assert plain(decoder_of(frame)(data)) == plain(frame)


@pytest.mark.parametrize(
    ("reason", "read"),
    [
        ("two\nlines\r\n", "two lines  "),
        ("\x1b[31mred\x07 \x9b \u2028", " [31mred     "),
        ("file \udce4", "file ?"),
        ("é" * 300, "é" * 256),
        ("x" * 511 + "é", "x" * 511),
        ("x" * 509 + "🦉", "x" * 509),
    ],
)
def test_a_reason_becomes_one_line_that_fits_and_ends_between_characters(reason, read):
    assert codec.decode_worker_frame(encode(Refused(1, reason))) == Refused(1, read)


# -------------------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize(("frame", "data"), EXAMPLES.values(), ids=EXAMPLES)
def test_a_frame_is_refused_wherever_it_is_cut(frame, data):
    has_open_end = isinstance(frame, Verdict)
    for length in range(len(data)):
        # A verdict ends with its betas, of which any number might have been meant: the agent counts them.
        if has_open_end and length > len(data) - len(frame.betas):
            continue
        if has_open_end and frame.outcome is Outcome.AUDITED and length == len(data) - len(frame.betas):
            continue
        with pytest.raises(Truncated):
            decoder_of(frame)(data[:length])


@pytest.mark.parametrize(("frame", "data"), EXAMPLES.values(), ids=EXAMPLES)
def test_bytes_after_the_last_field_are_refused(frame, data):
    if isinstance(frame, Verdict):
        with pytest.raises(TooLarge):
            codec.decode_worker_frame(data + bytes(frames.MAX_RUN + 2))
        return
    for rest in (b"\0", b"\xff", data):
        with pytest.raises(TrailingBytes):
            decoder_of(frame)(data + rest)


@pytest.mark.parametrize(("frame", "data"), EXAMPLES.values(), ids=EXAMPLES)
def test_another_version_is_refused_and_named(frame, data):
    for version in set(range(16)) - {codec.VERSION}:
        first = bytes([version << 4 | data[0] & 0xF])
        with pytest.raises(UnsupportedVersion, match=f"{version}, this side speaks 1"):
            decoder_of(frame)(first + data[1:])


@pytest.mark.parametrize(("frame", "data"), EXAMPLES.values(), ids=EXAMPLES)
def test_a_frame_is_refused_by_the_decoders_of_other_kinds(frame, data):
    for decoder in DECODERS:
        if decoder is not decoder_of(frame):
            with pytest.raises(UnknownKind):
                decoder(data)


@pytest.mark.parametrize("kind", [0, *range(8, 16)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_kind_that_does_not_exist_is_refused(decoder, kind):
    with pytest.raises(UnknownKind, match="kind"):
        decoder(bytes([codec.VERSION << 4 | kind, 0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("name", "known"),
    [("open", 0b11), ("ask", 0b111), ("audit", 0b111), ("ready", 0), ("refused", 0), ("resync", 0)],
)
def test_every_flag_that_a_kind_does_not_have_is_refused(name, known):
    frame, data = EXAMPLES[name]
    for flags in range(256):
        if flags & ~known:
            with pytest.raises(UnknownKind, match="flags"):
                decoder_of(frame)(data[:1] + bytes([flags]) + data[2:])


def test_of_a_verdicts_flags_only_the_meaningful_ones_are_taken():
    _, data = EXAMPLES["accepted with a bonus token"]
    taken = set()
    for flags in range(256):
        try:
            codec.decode_worker_frame(data[:1] + bytes([flags]) + data[2:])
        except UnknownKind:
            continue
        taken.add(flags)
    assert taken == {0b000, 0b100, 0b101, 0b010}  # accepted, with bonus, recovered, audited


def test_the_flag_for_compression_is_not_believed():
    for name in ("open", "ask", "audit"):
        frame, data = EXAMPLES[name]
        with pytest.raises(BadCompression):
            decoder_of(frame)(data[:1] + bytes([data[1] | 1]) + data[2:])
    compressed = encode(Draft(1, 0, 5, (7,) * 20, (256,) * 20, None))
    with pytest.raises(WireError):
        decode_draft(compressed[:1] + b"\x00" + compressed[2:])


HEADER = "12 00 05 00 09 64"  # an ask: session 5, epoch 0, position 9, deadline 100 ms


@pytest.mark.parametrize(
    ("data", "error", "what"),
    [
        ("12 00 ffffffff1f 00 09 64 00 01 2a", OutOfRange, "session"),
        ("12 00 05 ffffffff1f 09 64 00 01 2a", OutOfRange, "epoch"),
        ("12 00 05 00 00 64 00 01 2a", OutOfRange, "position"),
        ("12 00 05 00 80808008 64 00 01 2a", OutOfRange, "position"),
        ("12 00 05 00 09 c1cf24 00 01 2a", OutOfRange, "deadline"),
        ("12 00 8500 00 09 64 00 01 2a", OutOfRange, "session"),
        (f"{HEADER} 8120", OutOfRange, "run length"),
        (f"{HEADER} 8020 01", Truncated, "run ids"),
        (f"{HEADER} 01 80808008 ff 01 2a", OutOfRange, "run ids"),
        (f"{HEADER} 02 01 02 ff", Truncated, "run weights"),
        (f"{HEADER} 00 00", OutOfRange, "k"),
        (f"{HEADER} 00 8102 {'00' * 600}", OutOfRange, "k"),
        (f"{HEADER} 00 02 ffffff07 00 7f 00", OutOfRange, "distribution ids"),
        (f"{HEADER} 00 03 ffffff03 ffffff03 00 7f 10 00", OutOfRange, "distribution ids"),
        (f"{HEADER} 00 02 80808008 00 7f 00", OutOfRange, "distribution ids"),
        (f"{HEADER} 00 02 05 00 ff 00", OutOfRange, "distribution weights"),
        (f"{HEADER} 00 03 05 00 00 7f 7f 00", OutOfRange, "distribution weights"),
        (f"{HEADER} 00 8002 {'00' * 256} {'00' * 254} 01 00", OutOfRange, "distribution weights"),
        (f"{HEADER} 00 02 05 00 fe 02", OutOfRange, "draft token"),
        (f"{HEADER} 00 02 05 00 fe ff", OutOfRange, "draft token"),
        (f"{HEADER} 00 02 05 00 fe", Truncated, "draft token"),
        ("14 00 05 00 00 ff", OutOfRange, "position"),
        ("14 04 05 00 09 80808008 ff", OutOfRange, "token"),
        ("14 01 05 00 09 ff", UnknownKind, "flags"),
        ("14 06 05 00 09 2a", UnknownKind, "flags"),
        ("14 03 05 00 09 ff", UnknownKind, "outcome"),
        ("14 00 05 00 09", Truncated, "betas"),
        ("15 00 05 80808008", OutOfRange, "known"),
        ("17 00 05 00 80808008", OutOfRange, "known"),
        ("16 00 05 8104", OutOfRange, "length of reason"),
        ("16 00 05 02 c328", OutOfRange, "reason"),
        ("16 00 05 03 eda080", OutOfRange, "reason"),
        ("16 00 05 03 610a62", OutOfRange, "reason"),
        ("16 00 05 04 1b5b326a", OutOfRange, "reason"),
        ("16 00 05 03 e280a8", OutOfRange, "reason"),
        ("16 00 05 02 c29b", OutOfRange, "reason"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_by_name(data, error, what):
    raw = bytes.fromhex(data)
    decoder = decode_draft if raw[0] == 0x12 else codec.decode_worker_frame
    with pytest.raises(error, match=f"^{what}") as caught:
        decoder(raw)
    assert type(caught.value) is error


def test_the_widest_weights_that_leave_one_for_the_last_token_are_taken():
    draft = decode_draft(bytes.fromhex(f"{HEADER} 00 02 05 00 fe 01"))
    assert draft.doubt is not None
    assert draft.doubt.q_hat.weights.tolist() == [255, 1]
    assert (draft.doubt.token_id, draft.doubt.weight) == (6, 1)


def test_ids_are_held_against_the_vocabulary_that_both_share():
    draft = Draft(1, 0, 5, (99,), (256,), Doubt(one_hot(98), 0, 100))
    data = encode(draft)
    assert plain(codec.decode_draft(data, PLAIN, 100)) == plain(draft)
    with pytest.raises(OutOfRange, match="run ids"):
        codec.decode_draft(data, PLAIN, 99)
    with pytest.raises(OutOfRange, match="distribution ids"):
        codec.decode_draft(encode(Draft(1, 0, 5, (), (), Doubt(one_hot(99), 0, 100))), PLAIN, 99)
    with pytest.raises(OutOfRange, match="k at byte 1"):
        codec.decode_draft(bytes.fromhex(f"{HEADER} 00 04 00000000 000000 00"), PLAIN, 3)


def test_a_draft_may_not_reach_beyond_the_last_position():
    last = frames.MAX_POSITION
    for run, doubt in (((1, 2), None), ((1,), Doubt(one_hot(1), 0, 9))):
        fits = Draft(1, 0, last - 2, run, (256,) * len(run), doubt)
        assert plain(decode_draft(encode(fits))) == plain(fits)
        assert fits.end == last
        with pytest.raises(OutOfRange, match="run length"):
            decode_draft(encode(Draft(1, 0, last - 1, run, (256,) * len(run), doubt)))


SAMPLING_AT = 2 + 3 + 3 + 16  # in the golden opening, behind session, vocabulary size and digest
SAMPLING_FIELDS = {"temperature": (0, "<d"), "top_p": (8, "<d"), "top_k": (16, "<I"), "min_p": (20, "<d")}


@pytest.mark.parametrize("field", ["temperature", "top_p", "min_p"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1e-9, 10.5, -5e-324])
def test_sampling_parameters_that_are_no_numbers_or_out_of_bounds_are_refused(field, value):
    with pytest.raises(OutOfRange, match=f"sampling at byte {SAMPLING_AT}: {field}"):
        decode_open(_with_sampling(field, value))


@pytest.mark.parametrize(("field", "value"), [("top_p", 0.0), ("top_k", 2**20 + 1), ("top_k", 2**32 - 1)])
def test_sampling_parameters_out_of_their_own_bounds_are_refused(field, value):
    with pytest.raises(OutOfRange, match=f"sampling at byte {SAMPLING_AT}: {field}"):
        decode_open(_with_sampling(field, value))


def test_no_top_k_is_a_zero_on_the_wire():
    assert decode_open(_with_sampling("top_k", 0)).sampling.top_k is None


def _with_sampling(field, value):
    offset, layout = SAMPLING_FIELDS[field]
    data = bytearray(EXAMPLES["open"][1])
    struct.pack_into(layout, data, SAMPLING_AT + offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("size", "max_length", "body", "error", "what"),
    [
        ("00", "8010", "01 00", OutOfRange, "vocabulary size"),
        ("81808008", "8010", "01 00", OutOfRange, "vocabulary size"),
        ("64", "00", "01 00", OutOfRange, "maximum length"),
        ("64", "80808008", "01 00", OutOfRange, "maximum length"),
        ("64", "8010", "00", OutOfRange, "prompt length"),
        ("64", "02", "03 00 00 00", OutOfRange, "prompt length"),
        ("64", "ffffff07", "818008" + "00" * 9, OutOfRange, "prompt length"),
        ("64", "8010", "02 00", Truncated, "prompt ids"),
        ("64", "8010", "02 00 64", OutOfRange, "prompt ids"),
        ("64", "8010", "01 00 00", TrailingBytes, "frame"),
    ],
)
def test_an_opening_that_breaks_a_rule_is_refused_by_name(size, max_length, body, error, what):
    golden = EXAMPLES["open"][1]
    sampling_and_seed = golden[SAMPLING_AT : SAMPLING_AT + 36].hex()
    data = f"1100 05 {size} {'ab' * 16} {sampling_and_seed} {max_length} {body}"
    with pytest.raises(error, match=f"^{what}"):
        decode_open(bytes.fromhex(data))


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_oversized_frame_is_refused_before_it_is_looked_at(decoder):
    with pytest.raises(TooLarge, match=f"at most {codec.MAX_FRAME_BYTES}"):
        decoder(bytes(codec.MAX_FRAME_BYTES + 1))


def test_a_zip_bomb_is_refused_by_what_it_announces_before_memory_is_used():
    bomb = b"\xe0" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"
    tracemalloc.start()
    try:
        for decoder, header in ((decode_draft, "12 01 05 00 09 64"), (decode_draft, "13 01 05 00 09")):
            with pytest.raises(TooLarge, match=f"announces {1 << 40} bytes"):
                decoder(bytes.fromhex(header) + bomb)
        opening = EXAMPLES["open"][1]
        with pytest.raises(TooLarge, match="announces"):
            decode_open(opening[:1] + b"\x01" + opening[2 : SAMPLING_AT + 38] + bomb)
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_a_bomb_within_the_limit_costs_its_limit_and_no_more():
    # The largest body allowed, all zeros: a run of none, k = 0.
    packed, compressed = PLAIN.pack(bytes(MAX_BODY_BYTES))
    assert compressed
    tracemalloc.start()
    try:
        with pytest.raises(OutOfRange, match="k at byte 1"):
            decode_draft(bytes.fromhex("12 01 05 00 09 64") + packed)
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", range(3))
def test_a_needless_zero_in_any_header_field_is_refused(field):
    fields = ["05", "02", "09"]
    fields[field] = f"{int(fields[field], 16) | 0x80:02x}00"
    for kind, rest in (("12 00", "64 00 01 2a"), ("13 00", "01 2a ff"), ("14 00", "ff")):
        decoder = codec.decode_worker_frame if kind == "14 00" else decode_draft
        with pytest.raises(OutOfRange, match="needless"):
            decoder(bytes.fromhex(f"{kind} {' '.join(fields)} {rest}"))


@given(st.sampled_from(DECODERS), st.binary(max_size=80), st.integers(0, 15))
def test_any_bytes_give_a_frame_or_a_wire_error(decoder, data, kind):
    for attempt in (data, bytes([codec.VERSION << 4 | kind]) + data):
        try:
            frame = decoder(attempt)
        except WireError:
            continue
        # What was taken means the same when it is sent on.
        assert plain(decoder_of(frame)(encode(frame))) == plain(frame)


@given(drafts(), st.binary(min_size=1, max_size=8), st.data())
def test_a_damaged_body_gives_a_draft_or_a_wire_error_even_where_zstd_is_sound(draft, damage, data):
    body = Writer()
    whole = codec.encode_draft(draft, _Raw())
    header = len(_header(draft))
    plain_body = whole[header:]
    at = data.draw(st.integers(0, len(plain_body)))
    body.raw(plain_body[:at] + damage + plain_body[at + len(damage) :])
    packed, compressed = PLAIN.pack(bytes(body.buffer))
    flags = whole[1] & ~1 | compressed
    try:
        frame = decode_draft(whole[:1] + bytes([flags]) + whole[2:header] + packed)
    except WireError:
        return
    assert plain(decode_draft(encode(frame))) == plain(frame)


class _Raw(BodyCodec):
    """Leaves every body as it is."""

    def pack(self, body):
        return body, False


def _header(draft):
    writer = Writer()
    writer.raw(b"\0\0")
    writer.varints((draft.session, draft.epoch, draft.position))
    if draft.doubt is not None:
        writer.varint(draft.doubt.deadline_ms)
    return writer.buffer


# ------------------------------------------------------------------------------------------ and the rest


def test_the_session_of_a_broken_frame_is_seen_where_there_is_one():
    for name in ("open", "ask", "audit"):
        assert codec.peek_session(EXAMPLES[name][1]) == 70_000
        assert codec.peek_session(EXAMPLES[name][1][:5]) == 70_000
    for data in (b"", b"\x12", b"\x12\x00", b"\x12\x00\xf0\xa2", b"\x12\x00" + b"\xff" * 200_000):
        assert codec.peek_session(data) is None


@given(st.binary(max_size=30))
def test_peeking_never_raises(data):
    session = codec.peek_session(data)
    assert session is None or 0 <= session <= frames.MAX_SESSION


def test_a_run_whose_weights_are_missing_is_a_fault_of_the_caller():
    with pytest.raises(AssertionError):
        encode(Draft(1, 0, 5, (1, 2), (256,), None))


def test_every_error_names_its_field_in_one_line():
    with pytest.raises(OutOfRange) as caught:
        decode_draft(bytes.fromhex(f"{HEADER} 00 02 05 00 fe 02"))
    assert re.fullmatch(r"draft token at byte \d+: index 2 is not below 2", str(caught.value))
