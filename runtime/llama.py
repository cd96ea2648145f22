"""The door to llama.cpp, the only file that imports it. In: GGUF files, token ids. Out: logits.

`Model` is a loaded file: weights, vocabulary, chat template. `Context` is a cache over it that evaluates
spans of tokens for one or many sequences. Neither is safe to share between threads.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_chat_format

from schemas.errors import ConfigurationError, DownloadError, ModelError

logger = logging.getLogger(__name__)

Logits = npt.NDArray[np.float32]

# The largest piece seen in public vocabularies is 256 bytes (runs of spaces); grown when llama.cpp asks.
_PIECE_BYTES = 256
# ggml_log_level in ggml.h; llama-cpp-python does not name its values.
_LOG_LEVEL_ERROR = 4


class _LogBridge:
    """Hands llama.cpp's log lines to `logging` and keeps the first error, to explain a failed call."""

    def __init__(self) -> None:
        self._first_error = ""
        # Kept alive here: ctypes frees a callback that nothing refers to.
        self.callback = llama_cpp.llama_log_callback(self._log)

    def _log(self, level: int, text: bytes, _user_data: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == _LOG_LEVEL_ERROR:
            self._first_error = self._first_error or line
        if line:
            logger.debug("llama.cpp: %s", line)

    def take_error(self, otherwise: str) -> str:
        """The first error since the last call (the later ones only say that something failed)."""
        error, self._first_error = self._first_error or otherwise, ""
        return error


@functools.cache
def _log_bridge() -> _LogBridge:
    """Install the bridge, once a process: llama.cpp has a single, process-wide log callback."""
    bridge = _LogBridge()
    llama_cpp.llama_log_set(bridge.callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return bridge


@dataclass(frozen=True)
class TokenTable:
    """A vocabulary: each token's text as the file has it, and its kind (llama.cpp's attribute bits)."""

    texts: list[bytes]
    kinds: npt.NDArray[np.uint16]  # [vocab]


class Model:
    """A GGUF file loaded by llama.cpp; with `vocab_only` all of it but the weights, in a moment.

    Raises ConfigurationError where the file is missing or llama.cpp refuses it.
    """

    def __init__(self, path: Path, *, gpu_layers: int = 0, vocab_only: bool = False) -> None:
        if not path.is_file():
            raise ConfigurationError(f"model file {path} does not exist; give the path of a GGUF file")
        bridge = _log_bridge()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.vocab_only = vocab_only
        self.path, self.vocab_only = path, vocab_only
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise ConfigurationError(
                f"llama.cpp cannot load {path}: {bridge.take_error('unknown reason')}; give a whole GGUF file"
            )
        self._vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.num_tokens: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.num_meant = self._without_padding()
        self.context_length: int = llama_cpp.llama_model_n_ctx_train(self.handle)
        self.bos: int | None = _token_or_none(llama_cpp.llama_vocab_bos(self._vocab))
        self.eos: int | None = _token_or_none(llama_cpp.llama_vocab_eos(self._vocab))
        self.name = self._metadata("general.name") or path.stem

    @property
    def size_bytes(self) -> int:
        """The weights, all of them, in bytes."""
        return int(llama_cpp.llama_model_size(self.handle))

    @property
    def has_chat_template(self) -> bool:
        """Whether the file says how a conversation is written."""
        return self._metadata("tokenizer.chat_template") is not None

    @property
    def cell_bytes(self) -> int:
        """What a context needs for one cell, in bytes: a key and a value of every layer, as 16-bit floats.

        A little more than is needed for models that keep less in some layers.
        """
        heads = llama_cpp.llama_model_n_head_kv(self.handle)
        usual = llama_cpp.llama_model_n_embd(self.handle) // max(1, llama_cpp.llama_model_n_head(self.handle))
        architecture = self._metadata("general.architecture")
        key, value = (
            int(self._metadata(f"{architecture}.attention.{part}_length") or usual)
            for part in ("key", "value")
        )
        return int(llama_cpp.llama_model_n_layer(self.handle) * heads * (key + value) * 2)

    def close(self) -> None:
        """Free the weights; contexts over them must be closed before."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    def tokenize(self, text: str, *, special: bool = False, add_bos: bool = False) -> list[int]:
        """Text to token ids; `special` reads control tokens such as `<|end|>` in the text as themselves."""
        raw = text.encode()
        capacity = len(raw) + 8  # a byte makes one token at most; beside them BOS and EOS
        buffer = (llama_cpp.llama_token * capacity)()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), buffer, capacity, add_bos, special)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenize a text of {len(raw)} bytes (code {count})")
        return list(buffer[:count])

    @functools.lru_cache(maxsize=65536)  # noqa: B019  one model lives as long as its process
    def piece(self, token_id: int) -> bytes:
        """The bytes that a token adds to the text; empty for control tokens."""
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        size = llama_cpp.llama_token_to_piece(self._vocab, token_id, buffer, _PIECE_BYTES, 0, False)
        if size < 0:  # llama.cpp says so by the negated size that it needs
            buffer = ctypes.create_string_buffer(-size)
            size = llama_cpp.llama_token_to_piece(self._vocab, token_id, buffer, -size, 0, False)
        return buffer.raw[:size]

    def ends_generation(self, token_id: int) -> bool:
        """Whether the token ends an answer (end of text, of turn)."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token_id))

    def token_table(self) -> TokenTable:
        """The whole vocabulary, for its fingerprint."""
        vocab, ids = self._vocab, range(self.num_tokens)
        kinds = np.fromiter(
            (llama_cpp.llama_vocab_get_attr(vocab, i) for i in ids), np.uint16, self.num_tokens
        )
        return TokenTable([llama_cpp.llama_vocab_get_text(vocab, i) for i in ids], kinds)

    def chat_prompt_ids(self, messages: list[Any]) -> list[int]:
        """Render messages (`role`, `content`) with the file's own chat template, then tokenize.

        Raises ConfigurationError where the file has no template or the template refuses the messages.
        """
        formatter, bos = self._chat_formatter
        try:
            prompt = formatter(messages=messages).prompt
        except Exception as error:  # templates raise whatever they like
            raise ConfigurationError(
                f"the chat template of {self.path} refuses the messages: {error}"
            ) from error
        return self.tokenize(
            prompt, special=True, add_bos=self._adds_bos() and not (bos and prompt.startswith(bos))
        )

    @functools.cached_property
    def _chat_formatter(self) -> tuple[llama_chat_format.Jinja2ChatFormatter, str]:
        """The compiled chat template, which takes longer to make than to use, and the text of the BOS."""
        template = self._metadata("tokenizer.chat_template")
        if template is None:
            raise ConfigurationError(
                f"{self.path} has no chat template; send plain text instead (raw = true)"
            )
        bos, eos = self._token_text(self.bos), self._token_text(self.eos)
        return llama_chat_format.Jinja2ChatFormatter(template, eos_token=eos, bos_token=bos), bos

    def text_prompt_ids(self, text: str) -> list[int]:
        """Plain text to ids, with a BOS where the file asks for one; control tokens in it count as such."""
        return self.tokenize(text, special=True, add_bos=self._adds_bos())

    def _without_padding(self) -> int:
        """How many tokens there are before the unused ones that round a vocabulary up."""
        count = self.num_tokens
        while count > 1 and (
            llama_cpp.llama_vocab_get_attr(self._vocab, count - 1) & llama_cpp.LLAMA_TOKEN_ATTR_UNUSED
        ):
            count -= 1
        return count

    def _adds_bos(self) -> bool:
        return bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))

    def _token_text(self, token_id: int | None) -> str:
        if token_id is None:
            return ""
        return str(llama_cpp.llama_vocab_get_text(self._vocab, token_id).decode("utf-8", "replace"))

    def _metadata(self, key: str) -> str | None:
        size = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of one sequence to evaluate.

    `start` is the position of `token_ids[0]`; logits are wanted after each of the last `num_logits` tokens.
    Example: sequence 3 holds 10 tokens, [7, 8, 9] follow, and what comes after 8 and after 9 is wanted:
    Span(3, 10, [7, 8, 9], num_logits=2) gives two rows.
    """

    sequence: int
    start: int
    token_ids: Sequence[int]
    num_logits: int


@dataclass(frozen=True)
class ContextOptions:
    """How much a context may hold: cells over all sequences, sequences, tokens and logits a single pass."""

    num_cells: int
    max_sequences: int = 1
    max_batch: int = 512
    # Bounds llama.cpp's scratch buffer, rows of a whole vocabulary: 128 rows of 150,000 take 77 MB.
    max_outputs: int = 128
    num_threads: int = 1


class Context:
    """A cache of evaluated tokens over one model, for up to `max_sequences` sequences."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        assert not model.vocab_only, "there are no weights to evaluate with"
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options.num_cells
        params.n_seq_max = options.max_sequences
        params.n_batch = params.n_ubatch = min(options.max_batch, options.num_cells)
        params.n_outputs_max = min(options.max_outputs, params.n_batch)
        params.n_threads = params.n_threads_batch = options.num_threads
        # One pool of cells for all sequences: a batch of unequal spans stays one pass.
        params.kv_unified = True
        # A sliding window kept whole, else a rollback past the window is impossible.
        params.swa_full = True
        params.no_perf = True
        self.model, self.options = model, options
        self._max_batch, self._max_outputs = params.n_batch, params.n_outputs_max
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ModelError(
                f"llama.cpp cannot make a context of {options.num_cells} tokens for {model.path}: "
                f"{_log_bridge().take_error('out of memory?')}"
            )
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._batch = llama_cpp.llama_batch_init(self._max_batch, 0, 1)

    def close(self) -> None:
        """Free the cache."""
        if self.handle:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self.handle)
            self.handle = None

    def decode(self, spans: Sequence[Span]) -> list[Logits]:
        """Evaluate the spans in as few passes as the limits allow; returns `[num_logits, vocab]` for each.

        Raises ModelError when llama.cpp fails, for example with no cell left.
        """
        rows = [np.empty((span.num_logits, self.model.num_tokens), np.float32) for span in spans]
        targets: list[npt.NDArray[np.float32]] = []
        for span, row in zip(spans, rows, strict=True):
            first_wanted = len(span.token_ids) - span.num_logits
            for index, token_id in enumerate(span.token_ids):
                wants = index >= first_wanted
                if self._batch.n_tokens == self._max_batch or (wants and len(targets) == self._max_outputs):
                    self._run(targets)
                self._add(token_id, span.start + index, span.sequence, wants=wants)
                if wants:
                    targets.append(row[index - first_wanted])
        self._run(targets)
        return rows

    def truncate(self, sequence: int, length: int) -> int:
        """Forget the tokens of a sequence from position `length` on; returns how many stay.

        Caches that cannot forget a part (recurrent models) forget all: then 0 stay.
        """
        if llama_cpp.llama_memory_seq_rm(self._memory, sequence, length, -1):
            return length
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

    def _add(self, token_id: int, position: int, sequence: int, *, wants: bool) -> None:
        batch, index = self._batch, self._batch.n_tokens
        batch.token[index] = token_id
        batch.pos[index] = position
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = sequence
        batch.logits[index] = wants
        batch.n_tokens = index + 1

    def _run(self, targets: list[npt.NDArray[np.float32]]) -> None:
        """Evaluate what the batch holds and copy each wanted row of logits to its place."""
        if self._batch.n_tokens == 0:
            return
        code = llama_cpp.llama_decode(self.handle, self._batch)
        self._batch.n_tokens = 0
        if code != 0:
            reason = "no room left in its cache" if code == 1 else _log_bridge().take_error("unknown reason")
            raise ModelError(f"llama.cpp failed to evaluate {self.model.path} (code {code}): {reason}")
        if targets:
            shape = (len(targets), self.model.num_tokens)
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.handle), shape)
            for target, row in zip(targets, logits, strict=True):
                target[:] = row
            targets.clear()


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU, and there is one that it knows."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def quantize(source: Path, destination: Path, file_type: str, *, num_threads: int = 0) -> None:
    """Quantise a GGUF file with llama.cpp's own quantiser; `file_type` as llama.cpp names it, e.g. `Q4_K_M`.

    Raises ConfigurationError for an unknown type, ModelError where llama.cpp refuses.
    """
    code = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type.upper()}", None)
    if code is None:
        raise ConfigurationError(
            f"llama.cpp knows no quantisation named {file_type}; for example Q4_K_M or Q8_0"
        )
    bridge = _log_bridge()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = code, num_threads
    if (
        llama_cpp.llama_model_quantize(str(source).encode(), str(destination).encode(), ctypes.byref(params))
        != 0
    ):
        raise ModelError(f"llama.cpp cannot quantise {source}: {bridge.take_error('unknown reason')}")


def download_from_hub(repository: str, pattern: str, cache: Path) -> Path:
    """Download the one file of a model hub's repository that fits the pattern, by llama-cpp-python's own loader.

    It goes on from what an earlier try has left in `cache`, and tries the vocabulary of what came. Returns the
    file's path in the cache, `cache/models--OWNER--NAME/snapshots/COMMIT/PATH`: a link to a file that is named by
    its checksum. Raises ConfigurationError for what is not there, DownloadError where the hub cannot be reached.
    """
    # Plain HTTP goes on where it broke off, as our tests see; the hub's Xet transfer is not tried.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    try:
        from huggingface_hub.errors import (  # noqa: PLC0415  boards do without
            HfHubHTTPError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise ConfigurationError(
            "a model hub needs the package huggingface-hub; install it: pip install 'huggingface-hub<1'"
        ) from error
    _log_bridge()
    where = f"{repository} on the model hub"
    try:
        loaded = llama_cpp.Llama.from_pretrained(
            repository, pattern, cache_dir=str(cache), vocab_only=True, verbose=False
        )
    except LocalEntryNotFoundError as error:  # it asks the hub first, so the hub has not answered
        raise DownloadError(f"{where} cannot be reached; try again, it goes on from there") from error
    except FileNotFoundError as error:  # no such repository, or one that asks for a login
        raise ConfigurationError(f"{where}: not found; check its name, or log in (HF_TOKEN)") from error
    except ValueError as error:  # a name that cannot be; no file that fits, or several; no whole GGUF file
        raise ConfigurationError(f"{where}: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        raise DownloadError(f"{where}: {_first_line(error)}") from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise  # a file of ours, not the network
        raise DownloadError(f"{where}: the connection was lost; try again, it goes on from there") from error
    path = Path(loaded.model_path)
    loaded.close()
    return path


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _token_or_none(token_id: int) -> int | None:
    """llama.cpp writes -1 for a token that a vocabulary lacks."""
    return None if token_id < 0 else token_id
