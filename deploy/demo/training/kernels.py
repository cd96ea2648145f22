"""The two costly pieces of training on a CPU: attention, and the loss over the vocabulary.

In and out: torch tensors. Both compute in bfloat16 blocks that stay in the cache, and know their own
gradients. Measured on a Zen 4 core: attention in blocks takes half the time of torch's own fused kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Tensor = Any  # torch ships no types that mypy's strict mode can rely on

# Queries a block: small enough that little of the square above the diagonal is computed in vain.
QUERY_BLOCK = 160
# Rows of logits a block, 512 x 4,096 in float32: 8 MiB.
LOSS_BLOCK = 512


def softmax_block(scores: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`[heads, queries, keys]` scores to attention weights; the mask is 0, or minus infinity's stand-in."""
    scaled = scores.float() * scale + mask
    exps = torch.exp(scaled - scaled.amax(-1, keepdim=True))
    return (exps * (1 / exps.sum(-1, keepdim=True))).to(torch.bfloat16)


def softmax_block_gradient(weights: Tensor, d_weights: Tensor, scale: float) -> Tensor:
    """Gradient by the scores, from attention weights and the gradient by them."""
    weights, d_weights = weights.float(), d_weights.float()
    inner = (weights * d_weights).sum(-1, keepdim=True)
    return (weights * (d_weights - inner) * scale).to(torch.bfloat16)


def loss_block(
    hidden: Tensor, embedding: Tensor, next_ids: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy of a block of rows, the gradient of its weighted sum by `hidden`, and by the logits."""
    logits = (hidden @ embedding.t()).float()  # [rows, vocab]
    log_sum = torch.logsumexp(logits, -1)
    losses = log_sum - logits.gather(1, next_ids[:, None])[:, 0]
    vocab_ids = torch.arange(embedding.size(0))[None]
    d_logits = torch.exp(logits - log_sum[:, None]) - (vocab_ids == next_ids[:, None]).float()
    d_logits = (d_logits * weights[:, None]).to(torch.bfloat16)
    return losses, d_logits @ embedding, d_logits


_softmax_block = torch.compile(softmax_block, dynamic=True)
_softmax_block_gradient = torch.compile(softmax_block_gradient, dynamic=True)
_loss_block = torch.compile(loss_block, dynamic=False)


def causal_mask(max_length: int) -> Tensor:
    """`[max_length, max_length]`: 0 where a query may see a key, else so low that its weight is 0."""
    return torch.triu(torch.full((max_length, max_length), -1e30), 1)


@dataclass
class Guide:
    """Where the first head of a layer should look, and how it does: see guides.py.

    The gradient of the cross entropy of attention weights by the scores is `weights - one_hot(target)`, so it is
    simply added on the way back.
    """

    targets: Tensor  # [num_tokens] int64, positions within their sequence, negative for none
    strength: float

    def add_gradient(self, weights: Tensor, d_scores: Tensor, rows: slice, scale: float) -> None:
        """Add to `d_scores` `[heads, queries, keys]`; `rows` are the queries' places in the packed tokens."""
        targets = self.targets[rows]
        share = self.strength / max(1, int((self.targets >= 0).sum())) * scale
        pull = (targets >= 0).float()[:, None] * share  # [queries, 1]
        gradient = weights[0].float() * pull
        gradient.scatter_add_(1, targets.clamp(min=0)[:, None], -pull)
        d_scores[0] += gradient.to(d_scores.dtype)


@dataclass(frozen=True)
class Packing:
    """How sequences stand end to end: their lengths, the mask for the longest, and a guide where there is one."""

    lengths: list[int]
    mask: Tensor  # [max_length, max_length], from causal_mask
    guide: Guide | None = None


class PackedAttention(torch.autograd.Function):  # type: ignore[misc, unused-ignore]  # torch
    """Causal attention within each of several sequences that stand end to end.

    `queries`, `keys`, `values`: `[num_tokens, heads, head_size]` bfloat16; the lengths add up to num_tokens.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, packing: Packing) -> Tensor:
        """Attend; the weights of every block are kept for the way back."""
        output = torch.empty_like(queries, memory_format=torch.contiguous_format)
        kept, scale, start = [], queries.size(-1) ** -0.5, 0
        for length in packing.lengths:
            q, k, v = (_by_head(tensor, start, length) for tensor in (queries, keys, values))
            for first, last in _blocks(length):
                scores = torch.bmm(q[:, first:last], k[:, :last].mT)
                weights = _softmax_block(scores, packing.mask[first:last, :last], scale)
                output[start + first : start + last] = torch.bmm(weights, v[:, :last]).transpose(0, 1)
                kept.append(weights)
            start += length
        ctx.save_for_backward(queries, keys, values, *kept)
        ctx.packing = packing
        return output

    @staticmethod
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by queries, keys and values."""
        queries, keys, values, *kept = ctx.saved_tensors
        d_queries, d_keys, d_values = (torch.empty(queries.shape, dtype=queries.dtype) for _ in range(3))
        blocks, guide, scale, start = iter(kept), ctx.packing.guide, queries.size(-1) ** -0.5, 0
        for length in ctx.packing.lengths:
            q, k, v, d_out = (_by_head(tensor, start, length) for tensor in (queries, keys, values, d_output))
            d_k, d_v = torch.zeros(k.shape), torch.zeros(v.shape)
            for first, last in _blocks(length):
                weights, d_block, rows = (
                    next(blocks),
                    d_out[:, first:last],
                    slice(start + first, start + last),
                )
                d_v[:, :last] += torch.bmm(weights.mT, d_block)
                d_weights = torch.bmm(d_block, v[:, :last].mT)
                d_scores = _softmax_block_gradient(weights, d_weights, scale)
                if guide is not None:
                    guide.add_gradient(weights, d_scores, rows, scale)
                d_queries[rows] = torch.bmm(d_scores, k[:, :last]).transpose(0, 1)
                d_k[:, :last] += torch.bmm(d_scores.mT, q[:, first:last])
            d_keys[start : start + length] = d_k.transpose(0, 1)
            d_values[start : start + length] = d_v.transpose(0, 1)
            start += length
        return d_queries, d_keys, d_values, None


class WeightedLoss(torch.autograd.Function):  # type: ignore[misc, unused-ignore]  # torch
    """Weighted sum of the cross entropies of `hidden` `[rows, width]` against `next_ids` `[rows]`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, next_ids: Tensor, weights: Tensor) -> Tensor:
        """Compute the loss and, while the logits are at hand, its gradients."""
        narrow, total = embedding.to(torch.bfloat16), torch.zeros(())
        rows = hidden.to(torch.bfloat16)
        d_hidden, d_embedding = torch.empty_like(rows), torch.zeros(embedding.shape)
        for first in range(0, len(next_ids), LOSS_BLOCK):
            block = slice(first, first + LOSS_BLOCK)
            losses, d_rows, d_logits = _loss_block(rows[block], narrow, next_ids[block], weights[block])
            total += (losses * weights[block]).sum()
            d_hidden[block] = d_rows
            d_embedding += (d_logits.t() @ rows[block]).float()
        ctx.save_for_backward(d_hidden, d_embedding)
        return total

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients computed before."""
        d_hidden, d_embedding = ctx.saved_tensors
        return d_hidden.float() * d_loss, d_embedding * d_loss, None, None


def row_losses(hidden: Tensor, embedding: Tensor, next_ids: Tensor) -> Tensor:
    """Cross entropy of each row, without gradients: `[rows]` float32; rows are a multiple of LOSS_BLOCK."""
    narrow, rows = embedding.to(torch.bfloat16), hidden.to(torch.bfloat16)
    weights = torch.ones(LOSS_BLOCK)
    blocks = (slice(first, first + LOSS_BLOCK) for first in range(0, len(next_ids), LOSS_BLOCK))
    return torch.cat([_loss_block(rows[block], narrow, next_ids[block], weights)[0] for block in blocks])


def _by_head(tensor: Tensor, start: int, length: int) -> Tensor:
    """One sequence out of a packed tensor, `[heads, length, head_size]`."""
    return tensor[start : start + length].transpose(0, 1).contiguous()


def _blocks(length: int) -> list[tuple[int, int]]:
    """First and last+1 query of each block: a length of 200 gives (0, 160), (160, 200)."""
    return [(first, min(length, first + QUERY_BLOCK)) for first in range(0, length, QUERY_BLOCK)]
