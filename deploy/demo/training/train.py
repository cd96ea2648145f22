"""One stage of training. In: a stage, what it reads, the weights it starts from. Out: a checkpoint.

A step reads SHARDS batches; with two processes each takes one, so that the result does not depend on how many
cores there are. Each process uses one thread: two processes that meet once a step lose far less to other work
on the machine than two threads that meet at every product.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from deploy.demo.training.checkpoint import Progress, restore, save
from deploy.demo.training.guides import GuidePlan, guide_targets
from deploy.demo.training.kernels import Guide
from deploy.demo.training.losses import batch_loss, held_out_report
from deploy.demo.training.mixture import Mixture, Sources
from deploy.demo.training.model import Shape, Tensor, Transformer, Weights
from deploy.demo.training.optimiser import Optimiser, Rates, average_gradients
from deploy.demo.training.packing import Batch, pack
from deploy.demo.training.prepare import Part, TokenFile

SHARDS = 2
BATCH_TOKENS = 3072
# Positions of a batch whose loss is computed: all that an agent generates, and a sample of the others.
LOSS_ROWS = 2048
WARM_UP_STEPS = 40
CHECKPOINT_SECONDS = 180
REPORT_STEPS = 20
HELD_OUT_STEPS = 160


@dataclass(frozen=True)
class Stage:
    """One run of training, from given weights to a checkpoint."""

    name: str
    shape: Shape
    num_tokens: int
    starts_from: str | None = None  # a stage before; its weights are grown where the shape is deeper
    rates: Rates = field(default_factory=Rates)
    flat_share: float = 0.4  # of the tokens at the peak rate; then it falls in a straight line
    last_scale: float = 0.0  # to this share of the peak rate
    mixture: Mixture = field(default_factory=Mixture)
    early_mixture: Mixture | None = None  # instead of `mixture` at first
    early_share: float = 0.5  # for this share of the tokens
    guide: GuidePlan | None = None
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """A stage with all that it needs."""

    stage: Stage
    start: Weights
    sources: Sources
    heldout: TokenFile
    checkpoint: Path


def train_stage(run: Run, *, num_processes: int) -> None:
    """Run a stage to its end, or go on where its checkpoint stands."""
    if num_processes == 1:
        _train(run, 0, 1)
        return
    meeting_point = run.checkpoint.with_suffix(".meet")
    meeting_point.unlink(missing_ok=True)
    torch.multiprocessing.start_processes(_train_in_step, (run, num_processes, meeting_point), num_processes)
    meeting_point.unlink(missing_ok=True)


def _train_in_step(rank: int, run: Run, num_processes: int, meeting_point: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting_point.resolve()}", rank=rank, world_size=num_processes
    )
    _train(run, rank, num_processes)
    dist.destroy_process_group()


def _train(run: Run, rank: int, num_processes: int) -> None:
    """Every process runs this, with its share of the shards; the first of them reports and saves."""
    torch.set_num_threads(1)
    stage, progress = run.stage, Progress()
    model = Transformer(stage.shape, {name: weight.clone() for name, weight in run.start.items()})
    optimiser = Optimiser(model.weights, stage.rates)
    if run.checkpoint.exists():
        restore(run.checkpoint, model, optimiser, progress)
    shards = [_Shard(stage, run.sources, shard, progress) for shard in range(rank, SHARDS, num_processes)]
    reporter = _Reporter(stage, progress)
    saved_at = time.monotonic()
    while progress.num_tokens < stage.num_tokens:
        loss = _step(stage, model, optimiser, shards, progress)
        if rank == 0:
            reporter.report(progress, loss)
            if progress.num_steps % HELD_OUT_STEPS == 0:
                print(f"{stage.name}: held out {held_out_report(model, run.heldout)}", flush=True)
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                save(run.checkpoint, model, optimiser, progress)
                saved_at = time.monotonic()
    if rank == 0:
        print(f"{stage.name}: held out, at the end, {held_out_report(model, run.heldout)}", flush=True)
        save(run.checkpoint, model, optimiser, progress)


class _Reporter:
    """Prints speed and loss now and then."""

    def __init__(self, stage: Stage, progress: Progress) -> None:
        self._stage, self._num_tokens, self._at = stage, progress.num_tokens, time.monotonic()

    def report(self, progress: Progress, loss: float) -> None:
        """Called after each step."""
        if progress.num_steps % REPORT_STEPS:
            return
        now = time.monotonic()
        speed = (progress.num_tokens - self._num_tokens) / (now - self._at)
        print(
            f"{self._stage.name}: {progress.num_tokens / 1e6:.2f} of {self._stage.num_tokens / 1e6:.2f} M tokens, "
            f"{speed:.0f} a second, loss {loss:.3f}",
            flush=True,
        )
        self._num_tokens, self._at = progress.num_tokens, now


class _Shard:
    """The batches of one shard; which positions carry loss is drawn here, from the shard's own seed."""

    def __init__(self, stage: Stage, sources: Sources, number: int, progress: Progress) -> None:
        # A stage that goes on after a restart draws other dialogues than it would have without.
        seed = stage.seed * 1_000_003 + progress.num_steps * SHARDS + number
        self._rng = np.random.default_rng(seed)
        self._early = self._batches(stage, sources, stage.early_mixture or stage.mixture, seed)
        self._late = self._batches(stage, sources, stage.mixture, seed + SHARDS)

    def next(self, *, early: bool) -> tuple[Batch, Tensor]:
        """A batch, and the rows whose loss counts, `[LOSS_ROWS]`."""
        batch = next(self._early if early else self._late)
        ours = np.isin(batch.next_parts, (Part.ASSISTANT, Part.CALL, Part.ROLE))
        # Sorting by (not ours, chance) puts an agent's own positions first and a random sample behind them.
        order = np.lexsort((self._rng.random(ours.size), ~ours))
        return batch, torch.from_numpy(np.sort(order[:LOSS_ROWS]))

    @staticmethod
    def _batches(stage: Stage, sources: Sources, mixture: Mixture, seed: int) -> Iterator[Batch]:
        order = sources.order(mixture, seed)
        return pack(sources.tokens, order, num_tokens=BATCH_TOKENS, max_length=stage.shape.max_length)


def _step(
    stage: Stage, model: Transformer, optimiser: Optimiser, shards: list[_Shard], progress: Progress
) -> float:
    """One update; returns the loss of this process's shards."""
    done, total = progress.num_tokens / stage.num_tokens, 0.0
    for shard in shards:
        batch, rows = shard.next(early=done < stage.early_share)
        loss = batch_loss(model, batch, rows, _guides(stage, batch, done)) / len(shards)
        loss.backward()
        total += loss.item()
    average_gradients(model.weights)
    optimiser.step(_rate_scale(stage, done, progress.num_steps))
    progress.num_tokens += SHARDS * BATCH_TOKENS
    progress.num_steps += 1
    return total


def _guides(stage: Stage, batch: Batch, done: float) -> dict[int, Guide]:
    strength = stage.guide.strength_at(done) if stage.guide else 0.0
    if stage.guide is None or strength == 0:
        return {}
    targets = guide_targets(stage.guide, batch.token_ids.tolist(), batch.next_ids.tolist(), batch.lengths)
    return {layer: Guide(torch.from_numpy(positions), strength) for layer, positions in targets.items()}


def _rate_scale(stage: Stage, done: float, num_steps: int) -> float:
    """Warm up, stay, fall. `done` is the share of the stage's tokens that is behind."""
    left = min(1.0, (1 - done) / (1 - stage.flat_share))  # 1 while the rate stays, 0 at the end
    fallen = stage.last_scale + (1 - stage.last_scale) * left
    return min(1.0, (num_steps + 1) / WARM_UP_STEPS) * fallen
