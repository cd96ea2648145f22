"""The model: a Llama-shaped transformer with tied embeddings. In: token ids. Out: hidden states.

Weights are a plain dict of float32 tensors; matrix products run in bfloat16. The names:
`embedding [vocab, width]`, `norm [width]`, and for each layer `i`: `i.attention_norm`, `i.mlp_norm` `[width]`,
`i.qkv [3*width, width]`, `i.output [width, width]`, `i.gate_up [2*inner, width]`, `i.down [width, inner]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that torch's own documentation uses

from deploy.demo.training.kernels import Guide, PackedAttention, Packing, causal_mask
from deploy.demo.training.prepare import NUM_TOKENS

Tensor = Any  # torch ships no types that mypy's strict mode can rely on
Weights = dict[str, Tensor]

NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    num_layers: int
    width: int = 256
    num_heads: int = 4
    inner: int = 512
    max_length: int = 1280
    rope_base: float = 10_000.0

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads


def new_weights(shape: Shape, seed: int) -> Weights:
    """Random weights: small embeddings, and layers whose output is small in deep models."""
    generator = torch.Generator().manual_seed(seed)
    depth_scale = (2 * shape.num_layers) ** -0.5

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * scale

    width, inner = shape.width, shape.inner
    weights = {"embedding": normal(NUM_TOKENS, width, 0.02), "norm": torch.ones(width)}
    for layer in range(shape.num_layers):
        weights |= {
            f"{layer}.attention_norm": torch.ones(width),
            f"{layer}.qkv": normal(3 * width, width, 0.5 * width**-0.5),
            f"{layer}.output": normal(width, width, 0.5 * width**-0.5 * depth_scale),
            f"{layer}.mlp_norm": torch.ones(width),
            f"{layer}.gate_up": normal(2 * inner, width, 0.5 * width**-0.5),
            f"{layer}.down": normal(width, inner, 0.5 * inner**-0.5 * depth_scale),
        }
    return weights


def grown(weights: Weights, shape: Shape, seed: int) -> Weights:
    """A deeper model that computes the same: the last layer stays on top, new ones below start as the identity."""
    num_layers = sum(name.endswith(".qkv") for name in weights)
    result = new_weights(shape, seed)
    for name, weight in weights.items():
        prefix, _, rest = name.partition(".")
        moved = f"{shape.num_layers - 1}.{rest}" if rest and int(prefix) == num_layers - 1 else name
        result[moved] = weight.clone()
    for layer in range(num_layers - 1, shape.num_layers - 1):
        result[f"{layer}.output"].zero_()
        result[f"{layer}.down"].zero_()
    return result


def _rotated_qkv(
    x: Tensor, norm: Tensor, qkv: Tensor, turn: tuple[Tensor, Tensor], num_heads: int
) -> tuple[Tensor, ...]:
    """Queries, keys, values, `[num_tokens, heads, size]`; the first two turned by position, in pairs of neighbours."""
    width = x.size(1)
    normed = F.rms_norm(x, (width,), norm, NORM_EPSILON).to(torch.bfloat16)
    parts = (normed @ qkv.to(torch.bfloat16).t()).view(-1, 3, num_heads, width // num_heads)
    pairs = parts[:, :2].float().unflatten(-1, (-1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    cos, sin = (part[:, None, None] for part in turn)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(torch.bfloat16)
    return turned[:, 0], turned[:, 1], parts[:, 2]


def _rest_of_layer(x: Tensor, attended: Tensor, weights: list[Tensor]) -> Tensor:
    """Add what attention found, then the SwiGLU layer's part."""
    output, norm, gate_up, down = weights
    width = x.size(1)
    x = x + (attended.reshape(-1, width) @ output.to(torch.bfloat16).t()).float()
    normed = F.rms_norm(x, (width,), norm, NORM_EPSILON).to(torch.bfloat16)
    gate, up = (normed @ gate_up.to(torch.bfloat16).t()).chunk(2, -1)
    inner = (F.silu(gate.float()) * up.float()).to(torch.bfloat16)
    return x + (inner @ down.to(torch.bfloat16).t()).float()


def _attend(queries: Tensor, keys: Tensor, values: Tensor, packing: Packing) -> Tensor:
    apply: Any = PackedAttention.apply  # torch gives it no types
    return apply(queries, keys, values, packing)


# Compiled once each and used for all layers, since weights come in as arguments.
_compiled_qkv = torch.compile(_rotated_qkv, dynamic=False)
_compiled_rest = torch.compile(_rest_of_layer, dynamic=False)


class Transformer:
    """A shape and its weights, ready to read packed dialogues."""

    def __init__(self, shape: Shape, weights: Weights) -> None:
        self.shape = shape
        self.weights = {name: weight.requires_grad_() for name, weight in weights.items()}
        frequencies = shape.rope_base ** -(torch.arange(0, shape.head_size, 2).float() / shape.head_size)
        angles = torch.outer(torch.arange(shape.max_length).float(), frequencies)
        self._cos, self._sin = torch.cos(angles), torch.sin(angles)  # [max_length, head_size / 2]
        self._mask = causal_mask(shape.max_length)

    def hidden(self, token_ids: Tensor, lengths: list[int], guides: dict[int, Guide] | None = None) -> Tensor:
        """States before the final norm, `[num_tokens, width]` float32; `lengths` are the dialogues'."""
        positions = torch.cat([torch.arange(length) for length in lengths])
        turn = self._cos[positions], self._sin[positions]
        x = F.embedding(token_ids, self.weights["embedding"])
        for layer in range(self.shape.num_layers):
            guide = guides.get(layer) if guides else None
            x = self._layer(layer, x, turn, Packing(lengths, self._mask, guide))
        return x

    def normed(self, hidden: Tensor) -> Tensor:
        """The final norm: what the embedding is multiplied with to give logits."""
        return F.rms_norm(hidden, (self.shape.width,), self.weights["norm"], NORM_EPSILON)

    def _layer(self, layer: int, x: Tensor, turn: tuple[Tensor, Tensor], packing: Packing) -> Tensor:
        weights = self.weights
        norm, qkv = weights[f"{layer}.attention_norm"], weights[f"{layer}.qkv"]
        queries, keys, values = _compiled_qkv(x, norm, qkv, turn, self.shape.num_heads)
        attended = _attend(queries, keys, values, packing)
        rest = [weights[f"{layer}.{name}"] for name in ("output", "mlp_norm", "gate_up", "down")]
        return _compiled_rest(x, attended, rest)
