"""Bytes of integers and columns. In: values, or bytes from outside. Out: the other, or a WireError.

Integers are unsigned LEB128 varints: seven bits a byte, the lowest first, the top bit says that more follow.
Example: 300 = 0b10_0101100 is AC 02.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.errors import OutOfRange, TrailingBytes, Truncated

_MAX_VARINT_BYTES = 10  # 64 bits


class Writer:
    """Appends fields to a growing frame."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def varint(self, value: int) -> None:
        """Append an unsigned integer."""
        while value > 0x7F:
            self.buffer.append(value & 0x7F | 0x80)
            value >>= 7
        self.buffer.append(value)

    def varints(self, values: Iterable[int]) -> None:
        """Append a column of unsigned integers."""
        for value in values:
            self.varint(value)

    def raw(self, data: bytes) -> None:
        """Append bytes as they are."""
        self.buffer += data

    def block(self, data: bytes) -> None:
        """Append bytes behind their length."""
        self.varint(len(data))
        self.buffer += data


class Reader:
    """Reads fields from untrusted bytes; what breaks a rule raises a WireError that names the field."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0

    def varint(self, what: str, low: int, high: int) -> int:
        """An unsigned integer in [low, high], in its shortest form."""
        start, value, shift = self.offset, 0, 0
        while True:
            if self.offset >= len(self._data):
                raise Truncated(what, "the frame ends inside it", self.offset)
            byte = self._data[self.offset]
            self.offset += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if self.offset - start >= _MAX_VARINT_BYTES:
                raise OutOfRange(what, "an integer of more than 64 bits", start)
        if byte == 0 and shift:
            raise OutOfRange(what, "an integer with needless leading zeros", start)
        if not low <= value <= high:
            raise OutOfRange(what, f"{value} is not in {low} to {high}", start)
        return value

    def varints(self, what: str, count: int, low: int, high: int) -> list[int]:
        """A column of `count` unsigned integers, each in [low, high]."""
        self._require(what, count)  # each takes a byte at least: refuse before looping
        return [self.varint(what, low, high) for _ in range(count)]

    def raw(self, what: str, count: int) -> bytes:
        """The next `count` bytes."""
        self._require(what, count)
        self.offset += count
        return self._data[self.offset - count : self.offset]

    def block(self, what: str, max_bytes: int) -> bytes:
        """Bytes behind their length."""
        return self.raw(what, self.varint(f"length of {what}", 0, max_bytes))

    def rest(self) -> bytes:
        """All that is left."""
        rest, self.offset = self._data[self.offset :], len(self._data)
        return rest

    def end(self) -> None:
        """Refuse a frame that goes on."""
        if self.offset != len(self._data):
            raise TrailingBytes("frame", f"{len(self._data) - self.offset} bytes too many", self.offset)

    def _require(self, what: str, count: int) -> None:
        if count > len(self._data) - self.offset:
            missing = count - (len(self._data) - self.offset)
            raise Truncated(what, f"{missing} bytes are missing", self.offset)


def deltas(ascending: Sequence[int]) -> list[int]:
    """Strictly ascending integers as the first, then each gap less one. Example: [5, 6, 9] is [5, 0, 2]."""
    return [value - previous - 1 for previous, value in zip([-1, *ascending], ascending, strict=False)]


def from_deltas(gaps: Iterable[int]) -> list[int]:
    """Undo `deltas`."""
    values: list[int] = []
    previous = -1
    for gap in gaps:
        previous += gap + 1
        values.append(previous)
    return values
