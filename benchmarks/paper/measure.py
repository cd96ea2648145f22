"""Fills one cell. In: a stage, a cell, calls. Out: its sums."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.paper.calls import Call
from benchmarks.paper.counts import Sums
from benchmarks.paper.methods import Kind
from benchmarks.paper.plan import Cell
from benchmarks.paper.stage import Stage
from deploy.demo.training.measure import call_text

# The first answer of a process takes memory and opens files; it is begun, and thrown away.
_WARM_UP_TOKENS = 2


def measure(
    stage: Stage, cell: Cell, calls: tuple[Call, ...], profile: Path, seed: int, progress: Callable[[], None]
) -> Sums:
    """Answer the calls one after the other; `progress` is told of each. One board answers them all."""
    cell.link.apply(stage.proxy)
    sums = Sums()
    with stage.edge(cell.method, cell.temperature, profile) as edge:
        edge.answer(calls[0].prompt.model_copy(update={"max_tokens": _WARM_UP_TOKENS}), seed)
        stage.tap.payload_bytes()
        worker = stage.hunch if cell.method.kind is Kind.HUNCH else stage.paper
        before = worker.counts()
        num_prompt = 0
        started_s = time.monotonic()
        for number, call in enumerate(calls):
            produced = edge.answer(call.prompt, seed + number)
            sums.add(produced, is_right=call.is_right(call_text(edge.model, produced.ids)))
            num_prompt += len(produced.prompt_ids) - 1
            progress()
            if cell.max_s is not None and time.monotonic() - started_s > cell.max_s:
                break
        sums.payload_up = stage.tap.payload_bytes()
        after = worker.counts()
    sums.target_passes = after.passes - before.passes
    sums.target_tokens = after.tokens - before.tokens
    if cell.method.kind is Kind.HUNCH and not cell.method.edge:
        sums.target_tokens -= num_prompt
    return sums
