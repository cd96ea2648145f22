"""Checkpoints. In: a model, its optimiser, how far it is. Out: a file that is always whole, and back again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from deploy.demo.training.model import Transformer, Weights
from deploy.demo.training.optimiser import Optimiser

# More than any stage asks for: what write_base writes counts as done.
BASE_TOKENS = 10**12


@dataclass
class Progress:
    """How far a stage is."""

    num_tokens: int = 0
    num_steps: int = 0


def save(path: Path, model: Transformer, optimiser: Optimiser, progress: Progress) -> None:
    """Write beside and move, so that a checkpoint is always whole."""
    beside = path.with_suffix(".tmp")
    weights = {name: weight.detach() for name, weight in model.weights.items()}
    torch.save({"weights": weights, "optimiser": optimiser.state(), "progress": vars(progress)}, beside)
    beside.replace(path)


def restore(path: Path, model: Transformer, optimiser: Optimiser, progress: Progress) -> None:
    """Put a checkpoint's weights, optimiser state and progress into place."""
    state = torch.load(path, weights_only=True)
    for name, weight in state["weights"].items():
        model.weights[name].data.copy_(weight)
    optimiser.restore(state["optimiser"])
    progress.num_tokens, progress.num_steps = state["progress"]["num_tokens"], state["progress"]["num_steps"]


def load_weights(path: Path) -> tuple[Weights, int]:
    """A checkpoint's weights, and how many tokens its stage has read."""
    state = torch.load(path, weights_only=True)
    return state["weights"], state["progress"]["num_tokens"]


def write_base(path: Path, weights: Weights) -> None:
    """Weights that come from elsewhere, as the checkpoint of a stage that is done."""
    torch.save({"weights": weights, "progress": {"num_tokens": BASE_TOKENS, "num_steps": 0}}, path)
