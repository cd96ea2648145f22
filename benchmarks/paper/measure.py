"""Fills one cell. In: a stage, a cell, calls. Out: its sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper.calls import Call, spread
from benchmarks.paper.counts import Sums
from benchmarks.paper.methods import Kind
from benchmarks.paper.plan import Cell
from benchmarks.paper.stage import Edge, Stage
from deploy.demo.training.measure import call_text

# The first answer of a board takes memory and opens files; it is begun, and thrown away.
_WARM_UP_TOKENS = 2
# The target has to read whole answers for it, which would be half of all the work.
LOSS_EVERY = 5


@dataclass(frozen=True)
class Bench:
    """What all cells share; `profiles` by temperature."""

    stage: Stage
    calls: tuple[Call, ...]
    profiles: Mapping[float, Path]
    seed: int

    def measure(self, cell: Cell, progress: Callable[[], None]) -> Sums:
        """Answer a cell's calls one after the other, all by one board; `progress` is told of each."""
        worker = self.stage.hunch if cell.method.kind is Kind.HUNCH else self.stage.paper
        with self.stage.edge(cell, self.profiles[cell.temperature]) as edge:
            warm_up = self.calls[0].prompt.model_copy(update={"max_tokens": _WARM_UP_TOKENS})
            edge.answer(warm_up, self.seed, measures_loss=False)
            self.stage.tap.payload_bytes()
            before = worker.counts()
            sums, num_prompt = self._answer_all(cell, edge, progress)
            sums.payload_up = self.stage.tap.payload_bytes()
            after = worker.counts()
        sums.target_passes = after.passes - before.passes
        sums.target_tokens = after.tokens - before.tokens
        if cell.method.kind is Kind.HUNCH and not cell.method.edge:
            sums.target_tokens -= num_prompt
        return sums

    def _answer_all(self, cell: Cell, edge: Edge, progress: Callable[[], None]) -> tuple[Sums, int]:
        """The sums so far, and how many tokens of prompts the worker has read."""
        sums, num_prompt = Sums(), 0
        started_s = time.monotonic()
        for number, call in enumerate(spread(self.calls, cell.num_calls)):
            prompt = call.prompt.model_copy(update={"max_tokens": cell.max_tokens})
            measures_loss = number % LOSS_EVERY == 0
            produced = edge.answer(prompt, self.seed + number, measures_loss=measures_loss)
            sums.add(produced, is_right=call.is_right(call_text(edge.model, produced.ids)))
            num_prompt += len(produced.prompt_ids) - 1
            progress()
            if cell.max_s is not None and time.monotonic() - started_s > cell.max_s:
                break
        return sums, num_prompt
