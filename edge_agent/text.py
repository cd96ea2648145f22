"""Tokens to text as it may be shown. In: the bytes of committed tokens. Out: pieces of text that stand.

A character may span tokens, and a stop string may span more; what could still turn into either is held back.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from edge_agent.ledger import Origin

# JSON, or a tool call: JSON after a tag, as in `<tool_call>{"name": …`.
_STRUCTURED = re.compile(r"\s*(<[^<>\s]{1,32}>\s*)?[\[{]")
_BEGINNING_CHARS = 64


@dataclass(frozen=True)
class Piece:
    """Text that one token completed, and how that token came to be."""

    text: str
    origin: Origin


class TextAssembler:
    """Assembles the text of one answer; `stopped` once a stop string has appeared (it is not shown)."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self.stopped = False
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: list[Piece] = []
        self._last_origin = Origin.SKIPPED
        self._beginning = ""

    @property
    def is_structured(self) -> bool:
        """Whether the text so far begins like JSON or a tool call, which a program will read."""
        return _STRUCTURED.match(self._beginning) is not None

    def add(self, token_bytes: bytes, origin: Origin) -> list[Piece]:
        """The pieces that the token lets stand, in order; nothing once stopped."""
        if self.stopped:
            return []
        self._last_origin = origin
        text = self._decoder.decode(token_bytes)
        if text:
            self._held.append(Piece(text, origin))
            self._beginning += text[: _BEGINNING_CHARS - len(self._beginning)]
        held = "".join(piece.text for piece in self._held)
        found = [held.find(stop) for stop in self._stop if stop in held]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(held) - self._could_become_stop(held))

    def finish(self) -> list[Piece]:
        """What was held back, when nothing more comes; a cut character becomes U+FFFD."""
        if self.stopped:
            return []
        rest = self._decoder.decode(b"", final=True)
        if rest:
            self._held.append(Piece(rest, self._last_origin))
        return self._release(sum(len(piece.text) for piece in self._held))

    def _could_become_stop(self, held: str) -> int:
        """The length of the longest end of the text that begins a stop string."""
        return max(
            (size for stop in self._stop for size in range(1, len(stop)) if held.endswith(stop[:size])),
            default=0,
        )

    def _release(self, num_chars: int) -> list[Piece]:
        released: list[Piece] = []
        while num_chars > 0:
            piece = self._held.pop(0)
            if len(piece.text) > num_chars:
                self._held.insert(0, Piece(piece.text[num_chars:], piece.origin))
                piece = Piece(piece.text[:num_chars], piece.origin)
            released.append(piece)
            num_chars -= len(piece.text)
        return released
