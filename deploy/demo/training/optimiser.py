"""Muon for the matrices of the layers, AdamW for the rest. In: gradients. Out: changed weights.

Muon (Jordan et al., 2024): the momentum of a matrix, made orthogonal by five Newton-Schulz steps, is the update.
With several processes each makes its share of the matrices orthogonal and hands the result to the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from deploy.demo.training.model import Tensor, Weights

# The quintic's coefficients, from Muon's authors: steep at 0, so that small singular values rise quickly.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95
MUON_DECAY = 0.01
ADAM_BETAS = (0.9, 0.95)
# Matrices that stand stacked in one tensor are made orthogonal one by one.
STACKED = {"qkv": 3, "gate_up": 2, "output": 1, "down": 1}


@dataclass(frozen=True)
class Rates:
    """Peak learning rates."""

    muon: float = 0.012
    adam: float = 1.5e-3
    max_gradient_norm: float = 1.0


def orthogonal(matrices: Tensor) -> Tensor:
    """`[n, rows, columns]`, rows <= columns: about the nearest matrices whose singular values are all 1."""
    first, second, third = NEWTON_SCHULZ
    x = (matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(torch.bfloat16)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=second, alpha=third), x, beta=first)
    return x.float()


class Optimiser:
    """Both optimisers over a model's weights, in step across processes."""

    def __init__(self, weights: Weights, rates: Rates) -> None:
        self._weights, self._rates = weights, rates
        self._matrix_names = [name for name in weights if name.rpartition(".")[2] in STACKED]
        self._momenta = {name: torch.zeros_like(weights[name]) for name in self._matrix_names}
        others = [weight for name, weight in weights.items() if name not in self._momenta]
        self._adam = torch.optim.AdamW(others, rates.adam, betas=ADAM_BETAS, weight_decay=0.0)

    def state(self) -> dict[str, Any]:
        """What to keep in a checkpoint."""
        return {"momenta": self._momenta, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's state."""
        for name, momentum in state["momenta"].items():
            self._momenta[name].copy_(momentum)
        self._adam.load_state_dict(state["adam"])

    def step(self, scale: float) -> None:
        """One update at `scale` times the peak rates, from the gradients that `average_gradients` left."""
        self._clip()
        for group in self._adam.param_groups:
            group["lr"] = self._rates.adam * scale
        self._adam.step()
        with torch.no_grad():
            self._muon_step(self._rates.muon * scale)
        for weight in self._weights.values():
            weight.grad = None

    def _clip(self) -> None:
        gradients = [weight.grad for weight in self._weights.values()]
        norm = torch.sqrt(sum((gradient.square().sum() for gradient in gradients), torch.zeros(())))
        if norm > self._rates.max_gradient_norm:
            for gradient in gradients:
                gradient.mul_(self._rates.max_gradient_norm / norm)

    def _muon_step(self, rate: float) -> None:
        """Matrices of one shape together: a few large batched products instead of many small ones."""
        by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for name in self._matrix_names:
            weight, momentum, gradient = self._weights[name], self._momenta[name], self._weights[name].grad
            momentum.lerp_(gradient, 1 - MOMENTUM)
            pieces = STACKED[name.rpartition(".")[2]]
            updates = gradient.lerp(momentum, MOMENTUM).chunk(pieces)
            for matrix, update in zip(weight.data.chunk(pieces), updates, strict=True):
                by_shape.setdefault(tuple(sorted(update.shape)), []).append((matrix, update))
        for pairs in by_shape.values():
            wide = torch.stack([update.mT if _is_tall(update) else update for _, update in pairs])
            for (matrix, _), update in zip(pairs, _shared_orthogonal(wide), strict=True):
                growth = max(1.0, matrix.size(0) / matrix.size(1)) ** 0.5
                matrix.mul_(1 - rate * MUON_DECAY)
                matrix.add_(update.mT if _is_tall(matrix) else update, alpha=-rate * growth)


def average_gradients(weights: Weights) -> None:
    """Replace each process's gradients by their mean over processes."""
    if not dist.is_initialized():
        return
    flat = torch.cat([weight.grad.view(-1) for weight in weights.values()])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for weight, mean in zip(weights.values(), flat.split([w.numel() for w in weights.values()]), strict=True):
        weight.grad.copy_(mean.view_as(weight))


def _shared_orthogonal(matrices: Tensor) -> Tensor:
    """`orthogonal`, the work divided among the processes."""
    if not dist.is_initialized():
        return orthogonal(matrices)
    result = torch.zeros_like(matrices)
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    if len(matrices[mine]):
        result[mine] = orthogonal(matrices[mine])
    dist.all_reduce(result)
    return result


def _is_tall(matrix: Tensor) -> bool:
    return bool(matrix.size(0) > matrix.size(1))
