"""Corpus to token files. In: a corpus folder. Out: tok.json (byte-level BPE) and, for each split, a token file.

A token file (`.npz`) holds all dialogues end to end: `ids` and `parts`, one entry a token, and `lengths`, one a
dialogue. Each dialogue has `<|endoftext|>` before and after it: the first is what a model is given at the start
of a dialogue, the second is what it learns to say at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from deploy.demo.training.corpus import CONTROL_TOKENS, Dialogue, read_dialogues, render

NUM_TOKENS = 4096
END_OF_TEXT_ID = 0
END_ID = 5


class Part(IntEnum):
    """What a token is part of. The four roles have the ids of their control tokens."""

    PADDING = 0
    USER = 1
    ASSISTANT = 2
    CALL = 3
    RESULT = 4
    ROLE = 5  # the control token that opens a turn: who speaks next
    END_OF_TEXT = 6


@dataclass(frozen=True)
class TokenFile:
    """A split as tokens."""

    ids: npt.NDArray[np.uint16]  # [num_tokens]
    parts: npt.NDArray[np.uint8]  # [num_tokens], values of Part
    starts: npt.NDArray[np.int64]  # [num_dialogues + 1], where each dialogue starts, and where the last ends

    def dialogue(self, index: int, max_length: int) -> slice:
        """Where a dialogue stands, cut at `max_length` tokens."""
        start = int(self.starts[index])
        return slice(start, min(int(self.starts[index + 1]), start + max_length))

    @property
    def num_dialogues(self) -> int:
        """How many dialogues the file holds."""
        return len(self.starts) - 1


def train_tokenizer(corpus: Path, path: Path) -> None:
    """Learn a vocabulary of NUM_TOKENS from the training split and write it to `path`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus), trainer)
    tokenizer.save(str(path))


def write_tokens(corpus: Path, split: str, tokenizer_path: Path, path: Path) -> None:
    """Tokenize a split into a token file."""
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    dialogues = [tokenize(tokenizer, dialogue) for dialogue in read_dialogues(corpus, split)]
    np.savez(
        path,
        ids=np.concatenate(dialogues),
        parts=np.concatenate([parts_of(ids) for ids in dialogues]),
        lengths=np.array([len(ids) for ids in dialogues], np.int64),
    )


def read_tokens(path: Path) -> TokenFile:
    """Read a token file."""
    with np.load(path) as arrays:
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(arrays["lengths"])])
        return TokenFile(ids=arrays["ids"], parts=arrays["parts"], starts=starts)


def tokenize(tokenizer: Tokenizer, dialogue: Dialogue) -> npt.NDArray[np.uint16]:
    """A dialogue's ids, `<|endoftext|>` before and after."""
    return np.array([END_OF_TEXT_ID, *tokenizer.encode(render(dialogue)).ids, END_OF_TEXT_ID], np.uint16)


def parts_of(ids: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """The Part of each token: a turn's `<|end|>` belongs to the turn.

    `0, <|user|>, hi, <|end|>, 0` gives END_OF_TEXT, ROLE, USER, USER, END_OF_TEXT.
    """
    opens = (ids > END_OF_TEXT_ID) & (ids < END_ID)
    last_opening = np.maximum.accumulate(np.where(opens, np.arange(len(ids)), 0))
    parts: npt.NDArray[np.uint8] = ids[last_opening].astype(np.uint8)
    parts[opens] = Part.ROLE
    parts[ids == END_OF_TEXT_ID] = Part.END_OF_TEXT
    return parts


def _texts(corpus: Path) -> Iterator[str]:
    for dialogue in read_dialogues(corpus, "train"):
        for _, text in dialogue:
            yield text
