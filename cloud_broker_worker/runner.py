"""The target model at work. In: batches of work. Out: logits. Knows no agents and no queues."""

from __future__ import annotations

from cloud_broker_worker.sessions import Work
from cloud_broker_worker.verification import Rows
from runtime.llama import Context, Span


class TargetRunner:
    """Evaluates the work of many sessions in one pass; sequences of the context are the sessions' caches."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._num_cached: dict[int, int] = {}  # by sequence

    def run(self, batch: list[Work]) -> list[Rows]:
        """Logits for each piece of work, `[num_rows, vocab]`. Raises ModelError where llama.cpp fails."""
        return self._context.decode([self._span(work) for work in batch])

    def forget(self) -> None:
        """Empty all caches, after a failure that leaves their contents unknown."""
        for sequence in list(self._num_cached):
            self._context.truncate(sequence, 0)
        self._num_cached.clear()

    def _span(self, work: Work) -> Span:
        """Only what is new, once the cache has forgotten what no longer holds."""
        sequence, start = work.session.sequence, work.num_evaluated
        if self._num_cached.get(sequence, 0) > start:
            start = self._context.truncate(sequence, start)
        self._num_cached[sequence] = len(work.ids)
        return Span(sequence, start, work.ids[start:], work.num_rows)
