"""What training minimises, and the same on held-out dialogues. In: a model, batches. Out: losses in nats."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deploy.demo.training.kernels import Guide, WeightedLoss, row_losses
from deploy.demo.training.model import Tensor, Transformer
from deploy.demo.training.packing import Batch, pack
from deploy.demo.training.prepare import Part, TokenFile

# An agent lives by its calls; users and results are read, not generated, but teach the language and copying.
PART_WEIGHTS = {
    Part.PADDING: 0.0,
    Part.USER: 0.5,
    Part.ASSISTANT: 1.0,
    Part.CALL: 2.0,
    Part.RESULT: 0.5,
    Part.ROLE: 1.0,
    Part.END_OF_TEXT: 0.3,
}
# Held-out dialogues to read, in batches of a multiple of LOSS_BLOCK tokens.
HELD_OUT_BATCHES = 12
HELD_OUT_TOKENS = 3072


def batch_loss(model: Transformer, batch: Batch, rows: Tensor, guides: dict[int, Guide]) -> Tensor:
    """Mean cross entropy over the rows, weighted by PART_WEIGHTS."""
    weights = torch.tensor([PART_WEIGHTS[part] for part in Part])[torch.from_numpy(batch.next_parts)[rows]]
    hidden = model.hidden(torch.from_numpy(batch.token_ids), batch.lengths, guides).index_select(0, rows)
    next_ids = torch.from_numpy(batch.next_ids)[rows]
    apply: Any = WeightedLoss.apply  # torch gives it no types
    return apply(model.normed(hidden), model.weights["embedding"], next_ids, weights / weights.sum())


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]  # torch is untyped here
def held_out_report(model: Transformer, heldout: TokenFile) -> str:
    """Mean loss of held-out dialogues by part, as text."""
    order = iter(range(0, heldout.num_dialogues, 4))
    total, count = np.zeros(len(Part)), np.zeros(len(Part))
    batches = pack(heldout, order, num_tokens=HELD_OUT_TOKENS, max_length=model.shape.max_length)
    for _, batch in zip(range(HELD_OUT_BATCHES), batches, strict=False):
        hidden = model.normed(model.hidden(torch.from_numpy(batch.token_ids), batch.lengths))
        losses = row_losses(hidden, model.weights["embedding"], torch.from_numpy(batch.next_ids)).numpy()
        total += np.bincount(batch.next_parts, losses, len(Part))
        count += np.bincount(batch.next_parts, minlength=len(Part))
    means = total / np.maximum(count, 1)
    parts = ", ".join(f"{part.name.lower()} {means[part]:.3f}" for part in Part if part is not Part.PADDING)
    return f"all {total[1:].sum() / count[1:].sum():.4f} ({parts})"
