"""Texts to calibrate on. In: files. Out: stretches of tokens whose every position gets a draft token.

A `.jsonl` file holds a conversation a line, `{"messages": [{"role": …, "content": …}, …]}`: the turns that a
model would write become stretches, but for those of `"weight": 0`. Any other file is plain text, cut into
windows.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.llama import Model
from schemas.errors import ConfigurationError

# Audits of a whole stretch are under way at once, and the agent's inbox holds 256 messages.
MAX_STRETCH_TOKENS = 96
_WINDOW_TOKENS = 384
# Without any context the models would be compared at what no user asks.
_WINDOW_PROMPT_TOKENS = 16
# Turns that are told to a model, never written by one.
_TOLD = {"system", "developer", "user", "tool", "function", "result"}
# One document in three of these places is kept from the fits.
_HELD_OUT_OF_TEN = {2, 5, 8}


@dataclass(frozen=True)
class Stretch:
    """`text_ids` follow on `prompt_ids`; there are `len(text_ids) + 1` positions to draw a draft token at.

    One that `begins` a turn has for its prompt what an agent would open a session with.
    """

    document: int
    prompt_ids: tuple[int, ...]
    text_ids: tuple[int, ...]
    begins: bool = True

    @property
    def is_held_out(self) -> bool:
        """Whether the figures are from here; whole documents are, so that no fit has seen their words."""
        return self.document % 10 in _HELD_OUT_OF_TEN


def load_stretches(
    model: Model, files: Sequence[Path], n_ctx: int, num_positions: int | None = None
) -> list[Stretch]:
    """Stretches of the files, documents in an order drawn once and for all, so that any part is a sample.

    `num_positions` is how many there are to be, up to a stretch more; None: all. No more is tokenized than that
    takes. Raises ConfigurationError for a file that cannot be read and for texts too short to calibrate on.
    """
    documents = [parts for file in files for parts in _documents(model, file)]
    order = np.random.default_rng(0).permutation(len(documents)).tolist()
    stretches: list[Stretch] = []
    found = (
        stretch
        for number, index in enumerate(order)
        for prompt_ids, text_ids in documents[index]()
        for stretch in _cut(number, prompt_ids, text_ids, n_ctx)
    )
    for stretch in found:
        stretches.append(stretch)
        if num_positions is not None:
            num_positions -= len(stretch.text_ids) + 1
            if num_positions <= 0:
                break
    if len({stretch.document % 10 for stretch in stretches}) < 3:
        raise ConfigurationError("the text is too short: give at least 2,000 tokens, better 60,000")
    return stretches


_Parts = list[tuple[list[int], list[int]]]


def _documents(model: Model, file: Path) -> Iterator[Callable[[], _Parts]]:
    """The documents of a file, each tokenized no sooner than it is called for."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the text {file}: {error}") from error
    if file.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), start=1):
            yield functools.partial(_conversation, model, _messages(file, number, line))
        return
    ids = model.text_prompt_ids(text)
    for start in range(0, len(ids), _WINDOW_TOKENS):
        window = ids[start : start + _WINDOW_TOKENS]
        parts = [(window[:_WINDOW_PROMPT_TOKENS], window[_WINDOW_PROMPT_TOKENS:])]
        yield functools.partial(list, parts)


def _messages(file: Path, number: int, line: str) -> list[dict[str, Any]]:
    try:
        messages = json.loads(line)["messages"]
        return [
            {"role": str(turn["role"]), "content": str(turn["content"]), "weight": turn.get("weight", 1)}
            for turn in messages
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f'{file}, line {number}: not {{"messages": [{{"role": …, "content": …}}, …]}} ({error!r})'
        ) from error


def _conversation(model: Model, messages: list[dict[str, Any]]) -> _Parts:
    """One part a turn that a model writes: what came before it, and its own words."""
    parts: _Parts = []
    for index, message in enumerate(messages):
        if index == 0 or message["role"] in _TOLD or not message["content"] or not message["weight"]:
            continue
        # A template adds the assistant's own opening; a turn of another role is opened by being empty.
        opening = [] if message["role"] == "assistant" else [{"role": message["role"], "content": ""}]
        prompt_ids = model.chat_prompt_ids([*messages[:index], *opening])
        parts.append((prompt_ids, model.tokenize(message["content"])))
    return parts


def _cut(document: int, prompt_ids: list[int], text_ids: list[int], n_ctx: int) -> Iterator[Stretch]:
    """Pieces of a bounded length, each after all that came before; what the context cannot hold is left out."""
    for start in range(0, len(text_ids), MAX_STRETCH_TOKENS):
        before = (*prompt_ids, *text_ids[:start])
        piece = tuple(text_ids[start : start + MAX_STRETCH_TOKENS])
        if before and len(before) + len(piece) + 2 < n_ctx:
            yield Stretch(document, before, piece, begins=start == 0)
