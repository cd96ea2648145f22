"""The corpus as files. In: a folder with train.jsonl and heldout.jsonl (or .jsonl.xz). Out: dialogues, text.

One dialogue a line, a JSON list of `[role, text]`. A `call` is a tool call as JSON, its name under the key
`call`; the `result` after it is the first result that the tool gave.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from schemas.errors import ConfigurationError

Turn = tuple[str, str]
Dialogue = list[Turn]
CallKind = tuple[str, frozenset[str]]

ROLES = ("user", "assistant", "call", "result")
END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|end|>"
# In this order their ids are 0 to 5, which the packer and the GGUF files rely on.
CONTROL_TOKENS = (END_OF_TEXT, *(f"<|{role}|>" for role in ROLES), END_OF_TURN)


def read_dialogues(folder: Path, split: str) -> Iterator[Dialogue]:
    """The dialogues of a split, `train` or `heldout`; raises ConfigurationError where that is malformed."""
    plain, packed = folder / f"{split}.jsonl", folder / f"{split}.jsonl.xz"
    if not plain.is_file() and not packed.is_file():
        raise ConfigurationError(f"neither {plain} nor {packed} exists; the corpus needs both splits")
    return read_dialogue_file(plain if plain.is_file() else packed)


def read_dialogue_file(file: Path) -> Iterator[Dialogue]:
    """The dialogues of a .jsonl or .jsonl.xz file; raises ConfigurationError where that is malformed."""
    for line_number, line in enumerate(_lines(file), start=1):
        try:
            turns = json.loads(line)
        except ValueError:
            turns = None
        if not isinstance(turns, list) or not all(
            isinstance(turn, list) and len(turn) == 2 and turn[0] in ROLES for turn in turns
        ):
            raise ConfigurationError(f"line {line_number} of {file} is not a list of [role, text]")
        yield [(role, text) for role, text in turns]


def render(dialogue: Dialogue) -> str:
    """A dialogue as the models see it, without the `<|endoftext|>` before and after it."""
    return "".join(f"<|{role}|>{text}{END_OF_TURN}" for role, text in dialogue)


def call_kinds(dialogues: Iterator[Dialogue]) -> Counter[CallKind]:
    """How often each kind of tool call occurs: its name, and the names of its arguments and results."""
    return Counter(
        (json.loads(call)["call"], call_keys(call, result))
        for dialogue in dialogues
        for (role, call), (_, result) in pairwise(dialogue)
        if role == "call"
    )


def call_keys(call: str, result: str) -> frozenset[str]:
    """The argument and result names of a call; the corpus names no services, and these tell them apart."""
    return frozenset(json.loads(call)) | frozenset(json.loads(result))


def _lines(file: Path) -> Iterator[str]:
    open_text = lzma.open if file.suffix == ".xz" else open
    try:
        with open_text(file, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise ConfigurationError(f"cannot read the dialogues {file}: {error}") from error
