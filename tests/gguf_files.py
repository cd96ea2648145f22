"""Models made on the spot, for what the demo's pair cannot show. In: a vocabulary's shape. Out: GGUF files.

Their weights are random, so they say nothing sensible; but they are whole models of the llama architecture,
with a tokenizer and a chat template of another style than the demo's. Two with the same seed are related.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

CONTEXT_LENGTH = 256
_WIDTH, _NUM_HEADS, _INNER = 32, 2, 64
# With logits spread like this the likeliest of 150,000 tokens has a probability worth the name.
_LOGIT_DEVIATION = 6.0
_MERGES = ("t h", "th e", "Ġ the", "i n", "Ġ a", "o u", "e r")
_CONTROL = ("<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('there is no role ' + m['role']) }}"
    "{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """A model to be written.

    The first `num_tokens` ids are the vocabulary, the control tokens last; what follows up to `num_padded` are
    unused ones, as in files whose embedding was rounded up. `filler` begins the tokens that no text leads to.
    Of those, the first `num_added` are words nonetheless, as in models that were taught some later.
    `drift` is how far the weights are from those of the same seed. From `tempting_from` on, the output rows are
    so large that an unused token would be the likeliest everywhere.
    """

    name: str
    num_tokens: int
    num_padded: int
    filler: str = "word"
    seed: int = 1
    drift: float = 0.0
    tempting_from: int | None = None
    num_added: int = 0


def write_gguf(path: Path, plan: Plan) -> Path:
    """Write the file; 20 MB for 150,000 tokens."""
    writer = gguf.GGUFWriter(str(path), "llama")
    _add_facts(writer, plan)
    _add_vocabulary(writer, plan)
    for name, values in _tensors(plan).items():
        writer.add_tensor(name, values.astype(np.float16) if values.ndim == 2 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_facts(writer: Any, plan: Plan) -> None:
    writer.add_name(plan.name)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_NUM_HEADS)
    writer.add_head_count_kv(_NUM_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _NUM_HEADS)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_vocabulary(writer: Any, plan: Plan) -> None:
    kinds = gguf.TokenType
    words = [*_byte_characters(), *(merge.replace(" ", "") for merge in _MERGES)]
    words += [f"{plan.filler}{index}" for index in range(len(words), plan.num_tokens - len(_CONTROL))]
    num_meant = plan.num_tokens + plan.num_added
    added = [f"{plan.filler}{index}" for index in range(plan.num_tokens, num_meant)]
    padding = [f"[PAD{index}]" for index in range(num_meant, plan.num_padded)]
    writer.add_vocab_size(plan.num_padded)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*words, *_CONTROL, *added, *padding])
    types = [kinds.NORMAL] * len(words) + [kinds.CONTROL] * len(_CONTROL)
    types += [kinds.NORMAL] * len(added) + [kinds.UNUSED] * len(padding)
    writer.add_token_types(types)
    writer.add_token_merges(list(_MERGES))
    writer.add_eos_token_id(plan.num_tokens - 1)
    writer.add_add_bos_token(False)


def _tensors(plan: Plan) -> dict[str, Floats]:
    """The weights by name; the vocabulary's rows come first, so that padding changes nothing else."""
    common, own = np.random.default_rng(plan.seed), np.random.default_rng(plan.seed + 1)

    def matrix(rows: int, columns: int, deviation: float) -> Floats:
        shape = (rows, columns)
        values = common.standard_normal(shape, np.float32)
        values += np.float32(plan.drift) * own.standard_normal(shape, np.float32)
        return values * np.float32(deviation)

    small = _WIDTH**-0.5
    ones = np.ones(_WIDTH, np.float32)
    tensors = {
        "token_embd.weight": _padded(matrix(plan.num_tokens, _WIDTH, 1.0), plan),
        "output.weight": _padded(matrix(plan.num_tokens, _WIDTH, _LOGIT_DEVIATION * small), plan),
        "output_norm.weight": ones,
        "blk.0.attn_norm.weight": ones,
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": matrix(_INNER, _WIDTH, small),
        "blk.0.ffn_up.weight": matrix(_INNER, _WIDTH, small),
        "blk.0.ffn_down.weight": matrix(_WIDTH, _INNER, small),
    }
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensors[f"blk.0.{part}.weight"] = matrix(_WIDTH, _WIDTH, small)
    if plan.tempting_from is not None:
        count = plan.num_padded - plan.tempting_from
        rows = 4 * _LOGIT_DEVIATION * np.random.default_rng(0).standard_normal((count, _WIDTH), np.float32)
        tensors["output.weight"][plan.tempting_from :] = rows
    return tensors


def _padded(rows: Floats, plan: Plan) -> Floats:
    return np.pad(rows, ((0, plan.num_padded - plan.num_tokens), (0, 0)))


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies, as GPT-2 chose them."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return [*map(chr, own), *(chr(256 + index) for index in range(len(others)))]
