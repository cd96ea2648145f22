"""The draft model at work on one answer at a time. In: token ids. Out: logits for the next token."""

from __future__ import annotations

import numpy as np

from runtime.llama import Context, Span
from runtime.sampling import Logits
from schemas.errors import ModelError


class Drafter:
    """One sequence in a context: restarts, advances, rolls back. `length` tokens are evaluated."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ids: list[int] = []

    @property
    def length(self) -> int:
        """How many tokens are evaluated."""
        return len(self._ids)

    @property
    def capacity(self) -> int:
        """How many tokens can be."""
        return self._context.options.num_cells

    def restart(self, ids: list[int]) -> Logits:
        """Begin a new answer; what its prompt shares with the text before stays evaluated."""
        shared = 0
        # The last token is evaluated in any case: its logits are what is wanted.
        for old, new in zip(self._ids, ids[:-1], strict=False):
            if old != new:
                break
            shared += 1
        self.rollback(shared)
        return self.advance(ids[len(self._ids) :])

    def advance(self, ids: list[int]) -> Logits:
        """Evaluate the next tokens (at least one); returns the logits after the last, `[vocab]`.

        Raises ModelError where llama.cpp fails; everything is then forgotten, and the next answer starts anew.
        """
        try:
            (rows,) = self._context.decode([Span(0, len(self._ids), ids, num_logits=1)])
        except ModelError:
            # Some of the tokens may be in the cache, and a gap or an overlap would fail for ever.
            self._context.truncate(0, 0)
            self._ids = []
            raise
        self._ids += ids
        return np.asarray(rows[0])

    def rollback(self, length: int) -> None:
        """Forget all tokens from position `length` on; those before stay evaluated."""
        if length >= len(self._ids):
            return
        kept = self._ids[:length]
        stay = self._context.truncate(0, length)
        self._ids = kept[:stay]
        if kept[stay:]:  # a cache that can only forget everything
            self.advance(kept[stay:])
