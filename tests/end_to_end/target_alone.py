"""What the target model says by itself, and how sure that is. In: prompts. Out: greedy texts, and the noise.

llama.cpp's logits depend a little on what else is evaluated in the same pass. So a verdict can differ from
the model's own choice, but only where its two best tokens are as close as that.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.llama import Context, ContextOptions, Logits, Model, Span
from schemas.messages import ChatMessage, Prompt

_MAX_SEQUENCES = 4
# What a worker evaluates for a draft: the token in doubt and the one before it, with or without a run.
_SPAN_LENGTHS = (2, 3, 9)


@dataclass(frozen=True)
class Greedy:
    """A prompt and the model's own greedy answer, with the logits that chose each of its tokens."""

    prompt_ids: list[int]
    ids: list[int]
    rows: Logits  # [num_ids, vocab]

    @property
    def gaps(self) -> npt.NDArray[np.float32]:
        """How far the best token is from the second best, `[num_ids]`."""
        two_best = np.partition(self.rows, -2)[:, -2:]
        return np.asarray(two_best[:, 1] - two_best[:, 0])


@dataclass(frozen=True)
class Noise:
    """How much the gap between the two best logits changes with the shape of a pass, `[num_measured]`."""

    changes: npt.NDArray[np.float32]

    @property
    def most(self) -> float:
        """The largest change seen."""
        return float(self.changes.max())

    def explains(self, gaps: npt.NDArray[np.float32]) -> float:
        """How many places with such gaps are expected to turn out the other way."""
        return float((self.changes[:, None] >= gaps[None, :]).mean(axis=0).sum())


@dataclass(frozen=True)
class Comparison:
    """An answer against the target's own: places that differ, and the target's gap at each."""

    num_places: int
    gaps_where_different: list[float]


class TargetAlone:
    """The target model in one context of its own; `num_shared` cuts the vocabulary, as a session does."""

    def __init__(self, path: Path, *, num_shared: int | None = None) -> None:
        self.model = Model(path)
        self.num_shared = num_shared or self.model.num_tokens
        cells = self.model.context_length * _MAX_SEQUENCES
        self._context = Context(self.model, ContextOptions(cells, max_sequences=_MAX_SEQUENCES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._context.close()
        self.model.close()

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """A prompt's tokens."""
        if prompt.raw and prompt.text is not None:
            return self.model.text_prompt_ids(prompt.text)
        messages = prompt.messages or (ChatMessage(role="user", content=prompt.text or ""),)
        return self.model.chat_prompt_ids([message.model_dump() for message in messages])

    def greedy(self, prompt_ids: list[int], max_tokens: int) -> Greedy:
        """Answer by evaluating one token after the other and taking the likeliest."""
        ids: list[int] = []
        rows: list[Logits] = []
        self._prefill([prompt_ids])
        token_id = prompt_ids[-1]
        for position in itertools.count(len(prompt_ids) - 1):
            (row,) = self._decode([Span(0, position, [token_id], 1)])
            token_id = int(row[0].argmax())
            ids.append(token_id)
            rows.append(row[0])
            if len(ids) == max_tokens or self.model.ends_generation(token_id):
                break
        return Greedy(prompt_ids, ids, np.array(rows))

    def compare(self, own: Greedy, ids: list[int]) -> Comparison:
        """Hold an answer against the model's own, token for token.

        Where they part, the model's answer is what it says after the same tokens from there on.
        """
        different: list[float] = []
        start = 0
        while ids[start:] != own.ids[: len(ids) - start]:
            place = next(i for i, (a, b) in enumerate(zip(ids[start:], own.ids, strict=False)) if a != b)
            row = own.rows[place]
            different.append(float(row.max() - row[ids[start + place]]))
            start += place + 1
            if start == len(ids):
                break
            own = self.greedy([*own.prompt_ids, *own.ids[:place], ids[start - 1]], len(ids) - start)
        return Comparison(len(ids), different)

    def noise_alone(self, texts: Sequence[Greedy]) -> Noise:
        """Evaluate texts in the shapes of a worker's passes for a single agent."""
        return Noise(np.concatenate([self._changes([text], n) for n in _SPAN_LENGTHS for text in texts]))

    def noise_together(self, texts: Sequence[Greedy]) -> Noise:
        """The same for several agents: prompts and drafts of some beside those of others."""
        groups = [texts[begin : begin + _MAX_SEQUENCES] for begin in range(0, len(texts), _MAX_SEQUENCES)]
        return Noise(np.concatenate([self._changes(group, n) for n in _SPAN_LENGTHS for group in groups]))

    def noise_reopened(self, texts: Sequence[Greedy]) -> Noise:
        """The same where a session was opened anew before each pass: all that is known is its prompt."""
        changes = []
        for text in texts:
            for length, place in itertools.product(_SPAN_LENGTHS, range(len(text.ids))):
                rest = Greedy(
                    [*text.prompt_ids, *text.ids[:place]],
                    text.ids[place : place + length],
                    text.rows[place : place + length],
                )
                changes.append(self._changes([rest], length))
        return Noise(np.concatenate(changes))

    def _changes(self, texts: Sequence[Greedy], length: int) -> npt.NDArray[np.float32]:
        """Evaluate texts beside each other, `length` tokens of each a pass; how much their gaps change."""
        self._prefill([text.prompt_ids for text in texts])
        known = [[text.prompt_ids[-1], *text.ids[:-1]] for text in texts]
        rows: list[list[Logits]] = [[] for _ in texts]
        for begin in range(0, max(len(ids) for ids in known), length):
            spans = [
                Span(sequence, len(text.prompt_ids) - 1 + begin, part, len(part))
                for sequence, text in enumerate(texts)
                if (part := known[sequence][begin : begin + length])
            ]
            for span, got in zip(spans, self._decode(spans), strict=True):
                rows[span.sequence].append(got)
        changes = [
            _gap_changes(text.rows, np.concatenate(got)) for text, got in zip(texts, rows, strict=True)
        ]
        return np.concatenate(changes)

    def _prefill(self, prompts: Sequence[list[int]]) -> None:
        """Begin anew with these prompts, all in one pass; the last token of each is left for later."""
        for sequence in range(len(prompts)):
            self._context.truncate(sequence, 0)
        self._context.decode([Span(sequence, 0, ids[:-1], 0) for sequence, ids in enumerate(prompts)])

    def _decode(self, spans: list[Span]) -> list[Logits]:
        return [rows[:, : self.num_shared] for rows in self._context.decode(spans)]


def _gap_changes(before: Logits, after: Logits) -> npt.NDArray[np.float32]:
    """How much the gap between the two tokens that were best before has changed, `[num_rows]`."""
    best = np.argpartition(before, -2)[:, -2:]  # [num_rows, 2]
    two_before, two_after = (np.take_along_axis(rows, best, 1) for rows in (before, after))
    return np.asarray(np.abs((two_before - two_after) @ np.array([1, -1], np.float32)))
