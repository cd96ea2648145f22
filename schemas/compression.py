"""zstd for frame bodies. In: a body. Out: the body as it travels, and whether it is compressed.

The magicless format saves four bytes a frame, and a body that zstd does not shorten travels raw. What comes
from outside is bounded before it is decompressed.
"""

from __future__ import annotations

from collections.abc import Sequence

import zstandard

from schemas.errors import BadCompression, TooLarge

# The largest body is an opening with 2^17 ids of up to 4 bytes each, and their count.
MAX_BODY_BYTES = (1 << 19) + 3
_WINDOW_LOG = 19
_MAX_WINDOW_BYTES = 1 << 20  # a frame may take its whole body for its window
_LEVEL = 19  # bodies are tens of bytes: the highest level takes microseconds


class BodyCodec:
    """How bodies are written: compressed where that pays, ids as they are. Not thread-safe.

    A `schemas.codebook.Codebook` writes them by what is known of a pair; `mark` then says by which codebook.
    """

    mark: bytes | None = None

    def __init__(self, dictionary: bytes | None = None) -> None:
        data = None if dictionary is None else _dictionary(dictionary)
        self._compressor = zstandard.ZstdCompressor(
            dict_data=data,
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                _LEVEL,
                format=zstandard.FORMAT_ZSTD1_MAGICLESS,
                window_log=_WINDOW_LOG,
                write_content_size=True,
                write_checksum=False,
                write_dict_id=False,
            ),
        )
        self._decompressor = zstandard.ZstdDecompressor(
            dict_data=data, format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=_MAX_WINDOW_BYTES
        )

    def ranks(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids as they travel."""
        return ids

    def ids(self, ranks: Sequence[int]) -> Sequence[int]:
        """Undo `ranks`."""
        return ranks

    def pack(self, body: bytes) -> tuple[bytes, bool]:
        """The shorter of the body and its compressed form; True where it is the compressed one."""
        compressed = self._compressor.compress(body)
        return (compressed, True) if len(compressed) < len(body) else (body, False)

    def unpack(self, packed: bytes, *, compressed: bool) -> bytes:
        """Undo `pack`. Raises TooLarge before too much is made, BadCompression for bad zstd."""
        if len(packed) > MAX_BODY_BYTES:
            raise TooLarge("body", f"{len(packed)} bytes, at most {MAX_BODY_BYTES}")
        if not compressed:
            return packed
        try:
            frame = zstandard.get_frame_parameters(packed, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
            if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN:
                raise BadCompression("body", "tells no size, so that its buffer would be a guess")
            if frame.content_size == 0:  # zstandard would return nothing without a look at what follows
                raise BadCompression("body", "announces no bytes; an empty body travels raw")
            if frame.content_size > MAX_BODY_BYTES:
                raise TooLarge("body", f"announces {frame.content_size} bytes, at most {MAX_BODY_BYTES}")
            return self._decompressor.decompress(
                packed, max_output_size=MAX_BODY_BYTES, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise BadCompression("body", f"zstd: {error}") from error


def _dictionary(content: bytes) -> zstandard.ZstdCompressionDict:
    """A dictionary that works: it comes from outside, and zstd looks at it no sooner than at its first use."""
    try:
        dictionary = zstandard.ZstdCompressionDict(content)
        zstandard.ZstdCompressor(dict_data=dictionary).compress(b"")
        zstandard.ZstdDecompressor(dict_data=dictionary)
    except zstandard.ZstdError as error:
        raise BadCompression("dictionary", f"zstd: {error}") from error
    return dictionary
