"""Weights to a GGUF file that llama.cpp loads. In: a model's weights and tok.json. Out: an f16 GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from deploy.demo.training.corpus import CONTROL_TOKENS
from deploy.demo.training.model import NORM_EPSILON, Shape, Tensor, Weights
from deploy.demo.training.prepare import END_ID, END_OF_TEXT_ID

LICENCE = "CC-BY-SA-4.0"
DATA_NAME = "Schema-Guided Dialogue"
DATA_AUTHOR = "Rastogi et al. (2020), arXiv:1909.05855"
DATA_URL = "https://github.com/google-research-datasets/dstc8-schema-guided-dialogue"
# Roles as the corpus has them; `tool` is what other programs call a tool's result. The models were trained
# without system prompts, so `system` and `developer` messages are left out rather than shown as another role.
# A last message `assistant` or `call` without content opens that turn, for the model to say: so a caller can ask
# for a tool call. Otherwise the assistant speaks next.
CHAT_TEMPLATE = (
    "{%- set names = {'user': 'user', 'assistant': 'assistant', 'call': 'call', 'result': 'result',"
    " 'tool': 'result', 'function': 'result'} -%}"
    "{%- set last = messages[-1] -%}"
    "{%- set opened = last['role'] in ('assistant', 'call') and not last['content'] -%}"
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if opened and loop.last -%}"
    "{{- '<|' + names[message['role']] + '|>' -}}"
    "{%- elif message['role'] in names -%}"
    "{{- '<|' + names[message['role']] + '|>' + (message['content'] or '') + '<|end|>' -}}"
    "{%- elif message['role'] not in ('system', 'developer') -%}"
    "{{- raise_exception('role ' + message['role'] + ' is none of user, assistant, call, result, tool') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt and not opened -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
LAYER_TENSORS = {
    "attention_norm": ("attn_norm",),
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "output": ("attn_output",),
    "mlp_norm": ("ffn_norm",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "down": ("ffn_down",),
}


def export_gguf(weights: Weights, shape: Shape, *, name: str, tokenizer_path: Path, path: Path) -> None:
    """Write the file."""
    writer = gguf.GGUFWriter(str(path), "llama")
    _add_facts(writer, shape, name)
    _add_vocabulary(writer, json.loads(tokenizer_path.read_text(encoding="utf-8"))["model"])
    writer.add_tensor("token_embd.weight", _array(weights["embedding"]))
    writer.add_tensor("output_norm.weight", _array(weights["norm"]))
    for layer in range(shape.num_layers):
        for ours, theirs in LAYER_TENSORS.items():
            pieces = weights[f"{layer}.{ours}"].chunk(len(theirs))
            for tensor_name, piece in zip(theirs, pieces, strict=True):
                writer.add_tensor(f"blk.{layer}.{tensor_name}.weight", _array(piece))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def import_gguf(path: Path) -> Weights:
    """The weights of a file that `export_gguf` wrote, dequantised: a start for further training."""
    tensors = {
        tensor.name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        for tensor in gguf.GGUFReader(str(path)).tensors
    }
    weights = {"embedding": tensors["token_embd.weight"], "norm": tensors["output_norm.weight"]}
    num_layers = sum(name.endswith(".attn_q.weight") for name in tensors)
    for layer in range(num_layers):
        for ours, theirs in LAYER_TENSORS.items():
            weights[f"{layer}.{ours}"] = torch.cat([tensors[f"blk.{layer}.{name}.weight"] for name in theirs])
    return weights


def _add_facts(writer: Any, shape: Shape, name: str) -> None:
    writer.add_name(name)
    writer.add_description("Task-oriented dialogues with tool calls; made for Hunch's demo")
    writer.add_license(LICENCE)
    writer.add_license_link("https://creativecommons.org/licenses/by-sa/4.0/")
    writer.add_languages(["en"])
    writer.add_dataset_count(1)
    writer.add_dataset_name(0, DATA_NAME)
    writer.add_dataset_author(0, DATA_AUTHOR)
    writer.add_dataset_url(0, DATA_URL)
    writer.add_context_length(shape.max_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.num_layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_heads)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_vocabulary(writer: Any, bpe: dict[str, Any]) -> None:
    ids: dict[str, int] = bpe["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in CONTROL_TOKENS else normal for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]])
    # Every dialogue was read after an `<|endoftext|>`, so a prompt starts with one. A turn ends with `<|end|>`.
    writer.add_bos_token_id(END_OF_TEXT_ID)
    writer.add_add_bos_token(True)
    writer.add_eos_token_id(END_ID)
    writer.add_eot_token_id(END_ID)
    writer.add_pad_token_id(END_OF_TEXT_ID)


def _array(weight: Tensor) -> Any:
    """Matrices as float16, norms as float32, as llama.cpp wants them."""
    return weight.detach().numpy().astype(np.float16 if weight.dim() == 2 else np.float32)
