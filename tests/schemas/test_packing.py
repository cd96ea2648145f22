"""Varints, blocks and gaps: what is written is read back, and bytes from outside raise nothing but WireError."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import OutOfRange, TrailingBytes, Truncated, WireError
from schemas.packing import Reader, Writer, deltas, from_deltas

MAX_U64 = 2**64 - 1
ASCENDING = st.sets(st.integers(0, 2**24 - 1), max_size=300).map(sorted)


def varint_bytes(value):
    writer = Writer()
    writer.varint(value)
    return bytes(writer.buffer)


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**32 - 1, "ffffffff0f"),
        (MAX_U64, "ffffffffffffffffff01"),
    ],
)
def test_an_integer_has_the_bytes_of_the_protocol_page(value, data):
    assert varint_bytes(value).hex() == data
    assert Reader(bytes.fromhex(data)).varint("x", 0, MAX_U64) == value


@given(st.integers(0, MAX_U64))
def test_an_integer_is_read_back_and_leaves_nothing(value):
    reader = Reader(varint_bytes(value))
    assert reader.varint("x", 0, MAX_U64) == value
    reader.end()


@given(st.lists(st.integers(0, MAX_U64), max_size=20), st.binary(max_size=40), st.binary(max_size=40))
def test_fields_are_read_back_in_the_order_they_were_written(column, block, rest):
    writer = Writer()
    writer.varints(column)
    writer.block(block)
    writer.raw(rest)
    reader = Reader(bytes(writer.buffer))
    assert reader.varints("column", len(column), 0, MAX_U64) == column
    assert reader.block("block", 40) == block
    assert reader.rest() == rest
    reader.end()


@pytest.mark.parametrize("data", ["8000", "ff00", "808000", "80808080808080808000"])
def test_an_integer_with_needless_zeros_is_refused(data):
    with pytest.raises(OutOfRange, match="needless leading zeros"):
        Reader(bytes.fromhex(data)).varint("x", 0, MAX_U64)


@pytest.mark.parametrize("length", [10, 11, 1000, 100_000])
def test_an_integer_of_more_than_64_bits_is_refused_without_reading_on(length):
    reader = Reader(b"\xff" * length)
    with pytest.raises(OutOfRange, match="more than 64 bits"):
        reader.varint("x", 0, MAX_U64)
    assert reader.offset == 10


def test_a_tenth_byte_that_passes_64_bits_is_refused():
    with pytest.raises(OutOfRange):
        Reader(b"\xff" * 9 + b"\x7f").varint("x", 0, MAX_U64)


@pytest.mark.parametrize(("value", "low", "high"), [(4, 5, 9), (10, 5, 9), (0, 1, 0), (MAX_U64, 0, 2**32)])
def test_an_integer_out_of_its_bounds_is_refused_with_its_name_and_place(value, low, high):
    reader = Reader(b"\x01" + varint_bytes(value))
    reader.varint("first", 0, 1)
    with pytest.raises(OutOfRange, match="second at byte 1") as caught:
        reader.varint("second", low, high)
    assert (caught.value.what, caught.value.offset) == ("second", 1)


@pytest.mark.parametrize("data", ["", "80", "ffff", "ffffffffffffffffff"])
def test_an_integer_that_is_cut_off_is_truncated(data):
    with pytest.raises(Truncated):
        Reader(bytes.fromhex(data)).varint("x", 0, MAX_U64)


def test_a_column_that_cannot_be_there_is_refused_before_it_is_read():
    reader = Reader(b"\x01\x02\x03")
    with pytest.raises(Truncated, match="999999997 bytes are missing"):
        reader.varints("ids", 10**9, 0, 5)
    assert reader.offset == 0


def test_a_block_longer_than_allowed_is_refused_whether_it_is_there_or_not():
    for data in (b"\x05hello", b"\x05"):
        with pytest.raises(OutOfRange, match="length of reason"):
            Reader(data).block("reason", 4)


def test_a_block_that_is_cut_off_is_truncated():
    with pytest.raises(Truncated, match="reason at byte 1: 1 bytes are missing"):
        Reader(b"\x05hell").block("reason", 5)


def test_what_follows_the_last_field_is_refused():
    reader = Reader(b"ab")
    assert reader.raw("a", 1) == b"a"
    with pytest.raises(TrailingBytes, match="1 bytes too many"):
        reader.end()


@given(st.binary(max_size=60), st.integers(0, 70))
def test_any_bytes_give_values_within_their_bounds_or_a_wire_error(data, count):
    reader = Reader(data)
    try:
        assert 3 <= reader.varint("x", 3, 2**20) <= 2**20
        assert all(value <= 200 for value in reader.varints("column", count, 0, 200))
        assert len(reader.block("block", 8)) <= 8
        reader.end()
    except WireError:
        assert reader.offset <= len(data)


@given(ASCENDING)
@example([])
@example([0])
def test_ascending_integers_come_back_from_their_gaps(ascending):
    gaps = deltas(ascending)
    assert all(gap >= 0 for gap in gaps)
    assert from_deltas(gaps) == ascending


def test_the_gaps_of_neighbours_are_zeros():
    assert deltas([5, 6, 9]) == [5, 0, 2]
    assert deltas([0, 1, 2]) == [0, 0, 0]


@given(st.lists(st.integers(0, 2**24), max_size=50))
def test_whatever_the_gaps_are_the_values_ascend(gaps):
    values = from_deltas(gaps)
    assert values == sorted(set(values))
    assert deltas(values) == gaps
