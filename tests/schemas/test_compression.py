"""Bodies: the shorter form travels, it comes back as it was, and a hostile one is refused before it is big."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from schemas.compression import MAX_BODY_BYTES, BodyCodec
from schemas.errors import BadCompression, TooLarge, WireError

DICTIONARY = random.Random(1).randbytes(600)
CODECS = {"plain": BodyCodec(), "dictionary": BodyCodec(DICTIONARY)}
MAGICLESS = zstandard.FORMAT_ZSTD1_MAGICLESS


@pytest.fixture(params=CODECS)
def codec(request):
    return CODECS[request.param]


def zstd(body, *, announce=True, checksum=False, magicless=True):
    """A body as another client's zstd might compress it."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3,
        format=MAGICLESS if magicless else zstandard.FORMAT_ZSTD1,
        write_content_size=announce,
        write_checksum=checksum,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(body)


def announcing(num_bytes):
    """A frame of one empty raw block whose header announces `num_bytes` (RFC 8878, 3.1.1.1)."""
    return b"\xe0" + num_bytes.to_bytes(8, "little") + b"\x01\x00\x00"


@given(st.sampled_from(list(CODECS.values())), st.binary(max_size=300), st.integers(1, 40))
def test_a_body_comes_back_as_it_was_and_never_grows(codec, piece, repeats):
    body = piece * repeats
    packed, compressed = codec.pack(body)
    assert len(packed) <= len(body)
    assert codec.unpack(packed, compressed=compressed) == body


def test_what_zstd_does_not_shorten_travels_raw(codec):
    assert codec.pack(b"\x05\x01\x02") == (b"\x05\x01\x02", False)
    assert codec.pack(b"") == (b"", False)


def test_a_dictionary_shortens_what_it_knows():
    body = DICTIONARY[90:130]
    assert CODECS["plain"].pack(body) == (body, False)
    packed, compressed = CODECS["dictionary"].pack(body)
    assert compressed
    assert len(packed) < 20


def test_a_compressed_body_carries_neither_magic_nor_checksum_nor_dictionary_id(codec):
    packed, compressed = codec.pack(DICTIONARY * 2)
    assert compressed
    parameters = zstandard.get_frame_parameters(packed, format=MAGICLESS)
    assert (parameters.has_checksum, parameters.dict_id) == (False, 0)
    assert parameters.content_size == len(DICTIONARY) * 2
    assert not packed.startswith(b"\x28\xb5\x2f\xfd")


def test_the_largest_body_comes_through_and_one_byte_more_does_not(codec):
    largest = bytes(MAX_BODY_BYTES)
    packed, compressed = codec.pack(largest)
    assert compressed
    assert codec.unpack(packed, compressed=True) == largest
    assert codec.unpack(largest, compressed=False) == largest
    with pytest.raises(TooLarge):
        codec.unpack(largest + b"\0", compressed=False)
    with pytest.raises(TooLarge):
        codec.unpack(zstd(largest + b"\0"), compressed=True)


@pytest.mark.parametrize("checksum", [False, True])
def test_the_frames_of_another_zstd_encoder_are_taken(codec, checksum):
    body = b"any zstd encoder will do " * 400
    assert codec.unpack(zstd(body, checksum=checksum), compressed=True) == body


@pytest.mark.parametrize("num_bytes", [MAX_BODY_BYTES + 1, 2**30, 2**40, 2**63, 2**64 - 2])
def test_a_bomb_is_refused_by_what_it_announces_before_memory_is_used(codec, num_bytes):
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match=f"announces {num_bytes} bytes"):
            codec.unpack(announcing(num_bytes), compressed=True)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_a_real_bomb_of_64_megabytes_is_refused_before_memory_is_used(codec):
    bomb = zstd(bytes(1 << 26))
    assert len(bomb) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            codec.unpack(bomb, compressed=True)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_a_frame_that_lies_about_its_size_is_refused(codec):
    honest = zstd(b"a" * 300)
    assert honest[1:3] == (300 - 256).to_bytes(2, "little")
    for told in (299, 301, 5000):
        lying = honest[:1] + (told - 256).to_bytes(2, "little") + honest[3:]
        with pytest.raises(BadCompression):
            codec.unpack(lying, compressed=True)


def test_a_frame_that_tells_no_size_is_refused(codec):
    with pytest.raises(BadCompression, match="tells no size"):
        codec.unpack(zstd(b"a" * 300, announce=False), compressed=True)


@pytest.mark.parametrize("rest", [b"", b"\x01\x00\x00", b"anything at all"])
def test_a_frame_that_announces_nothing_is_refused_whatever_follows(codec, rest):
    with pytest.raises(BadCompression, match="announces no bytes"):
        codec.unpack(b"\x20\x00" + rest, compressed=True)


def test_what_follows_a_frame_is_refused(codec):
    for rest in (b"x", zstd(b"b" * 100)):
        with pytest.raises(BadCompression):
            codec.unpack(zstd(b"a" * 300) + rest, compressed=True)


def test_a_frame_is_refused_wherever_it_is_cut(codec):
    packed, _ = codec.pack(b"hunch " * 100)
    for length in range(len(packed)):
        with pytest.raises(BadCompression):
            codec.unpack(packed[:length], compressed=True)


@pytest.mark.parametrize(
    "body", [b"\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00", b"\x50\x2a\x4d\x18\x01\x00\x00\x00x"]
)
def test_frames_with_a_magic_number_are_not_ours(codec, body):
    with pytest.raises(BadCompression):
        codec.unpack(body, compressed=True)
    with pytest.raises(BadCompression):
        codec.unpack(zstd(b"a" * 300, magicless=False), compressed=True)


def test_a_codec_works_on_after_a_broken_frame(codec):
    packed, _ = codec.pack(b"hunch " * 100)
    with pytest.raises(BadCompression):
        codec.unpack(packed[:-1], compressed=True)
    assert codec.unpack(packed, compressed=True) == b"hunch " * 100


@pytest.mark.parametrize(
    "dictionary", [b"\x37\xa4\x30\xec" + bytes(60), b"\x37\xa4\x30\xec" + b"broken" * 30]
)
def test_a_broken_dictionary_is_refused(dictionary):
    with pytest.raises(BadCompression, match="dictionary: zstd"):
        BodyCodec(dictionary)


def test_a_dictionary_may_be_of_any_bytes_and_size():
    for content in (b"", b"x", bytes(7), DICTIONARY * 40):
        codec = BodyCodec(content)
        packed, compressed = codec.pack(b"hunch " * 100)
        assert codec.unpack(packed, compressed=compressed) == b"hunch " * 100


@given(st.sampled_from(list(CODECS.values())), st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_bounded_body_or_a_wire_error(codec, data, compressed):
    try:
        assert len(codec.unpack(data, compressed=compressed)) <= MAX_BODY_BYTES
    except WireError:
        assert compressed
