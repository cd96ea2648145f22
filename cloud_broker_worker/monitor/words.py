"""Token ids to text with origins. In: traced tokens, a vocabulary if there is one. Out: pieces of text. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cloud_broker_worker.monitor.printable import printable
from cloud_broker_worker.monitor.trace import Origin, Trace
from runtime.marks import MARKS

GAP = "…"
_MAX_PIECE_CHARS = 400


class Vocabulary(Protocol):
    """What turns an id into the bytes it adds to a text."""

    num_tokens: int

    def piece(self, token_id: int) -> bytes:
        """The bytes of one token."""
        ...


@dataclass(frozen=True)
class Piece:
    """Text that a token completed, and how that token came to be."""

    text: str
    origin: Origin


def answer_pieces(trace: Trace, vocabulary: Vocabulary | None) -> list[Piece]:
    """The answer so far. Where tokens are missing stands a gap; without a vocabulary, each token is its id."""
    pieces: list[Piece] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    expected = trace.num_prompt
    for place, token in trace.tokens:
        if place != expected:
            pieces.append(Piece(GAP, Origin.UNKNOWN))
        expected = place + 1
        text = _text(decoder, token.token_id, vocabulary)
        if text:
            pieces.append(Piece(text, token.origin))
    return pieces


def prompt_text(prompt_ids: Iterable[int], vocabulary: Vocabulary) -> str:
    """The question, as far as its ids were kept. Tokens without text stand between turns: a line ends there."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    lines = [""]
    for token_id in prompt_ids:
        if token_id < vocabulary.num_tokens and not vocabulary.piece(token_id):
            lines.append("")
        lines[-1] += _text(decoder, token_id, vocabulary)
    return "\n".join(line.strip() for line in lines if line.strip())


def marked(pieces: Iterable[Piece]) -> str:
    """The text in one line, each token with the mark of its origin."""
    line = "".join(
        f"{MARKS[piece.origin.value][0]}{piece.text}{MARKS[piece.origin.value][1]}" for piece in pieces
    )
    return line.replace("\n", "\\n")


def _text(decoder: codecs.IncrementalDecoder, token_id: int, vocabulary: Vocabulary | None) -> str:
    if vocabulary is None or token_id >= vocabulary.num_tokens:
        return f" {token_id}"
    text = decoder.decode(vocabulary.piece(token_id))
    return printable(text, max_chars=_MAX_PIECE_CHARS, keep_lines=True)
