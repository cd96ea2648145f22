"""Dialogues to batches. In: a token file, an order. Out: batches of one fixed size, made of whole dialogues.

No dialogue is padded and none sees another: a batch is dialogues end to end, and attention is computed for each
by itself. So every dialogue is read as it will be used, from its start at position 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.demo.training.prepare import Part, TokenFile

# How far to look ahead for a dialogue that fits what is left of a batch. With 64 under 1 % stays empty.
LOOK_AHEAD = 64
# Padding counts as dialogues of at most this length, so that attention over it costs what it does elsewhere.
PADDING_RUN = 512


@dataclass(frozen=True)
class Batch:
    """`num_tokens` tokens to read, and for each what follows it."""

    token_ids: npt.NDArray[np.int64]  # [num_tokens]
    next_ids: npt.NDArray[np.int64]  # [num_tokens]
    next_parts: npt.NDArray[
        np.int64
    ]  # [num_tokens], values of Part, PADDING where there is nothing to predict
    lengths: list[int]  # of the dialogues, in order; adds up to num_tokens
    num_real_tokens: int


def shuffled(indices: range, seed: int) -> Iterator[int]:
    """The indices for ever, each once a round."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.permutation(indices).tolist()


def pack(tokens: TokenFile, order: Iterator[int], *, num_tokens: int, max_length: int) -> Iterator[Batch]:
    """Fill batches with dialogues, in order except where one further on fits the rest of a batch better."""
    waiting: list[slice] = []
    while True:
        chosen, room = [], num_tokens
        while True:
            waiting.extend(
                tokens.dialogue(index, max_length + 1) for index in _take(order, LOOK_AHEAD - len(waiting))
            )
            index = _choose(waiting, room, max_length)
            if index is None:
                break
            chosen.append(waiting.pop(index))
            room -= _size(chosen[-1])
        if not chosen:
            return
        yield _batch(tokens, chosen, room)


def _choose(waiting: list[slice], room: int, max_length: int) -> int | None:
    """The first that fits; towards the end of a batch the longest that fits."""
    fitting = [index for index, span in enumerate(waiting) if _size(span) <= room]
    if not fitting:
        return None
    return fitting[0] if room > max_length else max(fitting, key=lambda index: _size(waiting[index]))


def _size(span: slice) -> int:
    """Tokens that a dialogue takes in a batch: all but its last, which is only predicted."""
    return int(span.stop - span.start) - 1


def _batch(tokens: TokenFile, spans: list[slice], num_padding: int) -> Batch:
    read = [slice(span.start, span.stop - 1) for span in spans]
    follow = [slice(span.start + 1, span.stop) for span in spans]
    padding = np.zeros(num_padding, np.int64)
    whole, rest = divmod(num_padding, PADDING_RUN)
    return Batch(
        token_ids=np.concatenate([*(tokens.ids[span] for span in read), padding]).astype(np.int64),
        next_ids=np.concatenate([*(tokens.ids[span] for span in follow), padding]).astype(np.int64),
        next_parts=np.concatenate([*(tokens.parts[span] for span in follow), padding + Part.PADDING]).astype(
            np.int64
        ),
        lengths=[*map(_size, spans), *[PADDING_RUN] * whole, *([rest] if rest else [])],
        num_real_tokens=sum(map(_size, spans)),
    )


def _take(order: Iterator[int], count: int) -> Iterator[int]:
    for _ in range(count):
        index = next(order, None)
        if index is None:
            return
        yield index
