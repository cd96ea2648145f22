"""Keeps what others say from moving the cursor. In: text from outside. Out: text that a terminal only shows."""

from __future__ import annotations

import unicodedata

# Control characters, invisible formatting (writing direction above all), halves of characters, private use,
# and the two separators that are line ends.
_UNSHOWN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_STAND_IN = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, *, max_chars: int = 200, keep_lines: bool = False) -> str:
    """`text` with a stand-in for all that is not shown as itself, cut to `max_chars`."""
    cut = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return "".join(
        character
        if (keep_lines and character == "\n") or unicodedata.category(character) not in _UNSHOWN
        else _STAND_IN
        for character in cut
    )
