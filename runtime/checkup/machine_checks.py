"""What needs no network: files, model, memory, processors, clock. In: settings. Out: findings.

`MachineChecks` keeps the model that it has loaded, and the context, for what is tried with them later.
"""

from __future__ import annotations

import stat
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from runtime.checkup.checks import Finding, failed, passed, skipped, warned
from runtime.llama import Context, ContextOptions, Model, Span, supports_gpu
from runtime.machine import available_memory_bytes, clock_is_kept, usable_processors
from runtime.settings import HunchSettings
from schemas.errors import ModelError

# Above this share of what is free, the next program that starts may be the one too many.
_TIGHT_SHARE = 0.8
# A broker's certificates are good from a day before they were made.
_CLOCK_BEHIND_S = 86_400
# A measurement of the model's speed ends at either.
_SPEED_S, _SPEED_TOKENS = 1.0, 32


class MachineChecks:
    """The checks of one process's machine. `options` says what context the process makes over its model."""

    def __init__(
        self, settings: HunchSettings, config: Path | None, options: Callable[[Model], ContextOptions]
    ) -> None:
        self.settings, self._config, self._options = settings, config, options
        self.model: Model | None = None
        self.context: Context | None = None
        self._free_bytes: int | None = None

    def close(self) -> None:
        """Free what was loaded."""
        if self.context is not None:
            self.context.close()
        if self.model is not None:
            self.model.close()

    def check_settings(self) -> Finding:
        """Whether they fit together, where they come from, and who can read the secrets in them."""
        self.settings.broker_address()  # raises for what no broker could be reached with
        files = [str(file) for file in (self._config, self.settings.credentials) if file is not None]
        source = " and ".join(files) or "flags, variables and defaults"
        open_files = [str(file) for file in sorted(self._secret_files()) if _others_can_read(file)]
        if open_files:
            listed = " ".join(open_files)
            return warned(
                f"every user of this machine can read the secrets in {listed}", f"chmod o-rwx {listed}"
            )
        return passed(f"{self.settings.name}, from {source}")

    def check_model(self, *, chats: bool) -> Finding:
        """Whether llama.cpp takes the file; `chats`: and whether it knows how to write a conversation."""
        path = self.settings.model
        if path == Path():
            return failed("no model is set", "give --model, the path of a GGUF file")
        self._free_bytes = available_memory_bytes()  # before some of it is the model's
        model = self.model = Model(path, gpu_layers=self.settings.gpu_layers)
        figures = {"bytes": model.size_bytes, "vocabulary": model.num_tokens, "context": model.context_length}
        found = f"{model.name}, {_megabytes(model.size_bytes)}, {model.num_tokens} tokens in its vocabulary"
        if chats and not model.has_chat_template:
            return warned(
                f"{found}, but no chat template: it can only continue text",
                "use an instruction-tuned file, or send prompts with raw",
                **figures,
            )
        return passed(found, **figures)

    def check_gpu(self) -> Finding:
        """Whether layers can go where the settings want them."""
        wanted = self.settings.gpu_layers
        if not wanted:
            return passed("none asked for")
        if supports_gpu():
            return passed(f"{wanted} layers")
        return warned(
            f"{wanted} layers are asked for, but this llama.cpp knows no GPU: all stay on the processor",
            "set gpu_layers to 0, or build llama-cpp-python for your GPU",
        )

    def check_memory(self) -> Finding:
        """Whether weights, cache and logits fit into what is free."""
        model = self._loaded()
        options = self._options(model)
        cache = options.num_cells * model.cell_bytes
        needed = model.size_bytes + cache + options.max_outputs * model.num_tokens * 4
        free = self._free_bytes
        if free is None:
            return skipped("the kernel does not say how much is free")
        found = (
            f"{_megabytes(needed)} needed ({_megabytes(cache)} of it for {options.num_cells} tokens of context), "
            f"{_megabytes(free)} free"
        )
        figures = {"needed_bytes": needed, "cache_bytes": cache, "free_bytes": free}
        if self.settings.gpu_layers and supports_gpu():
            return passed(f"{found}; how much of it goes to the GPU shows with the context", **figures)
        if needed > free:
            return failed(found, f"{self._less_memory()}, or take a smaller model", **figures)
        if needed > _TIGHT_SHARE * free:
            return warned(f"{found}: tight", self._less_memory(), **figures)
        return passed(found, **figures)

    def check_context(self) -> Finding:
        """Whether the model was made for so many tokens, and whether llama.cpp gives them."""
        model = self._loaded()
        options = self._options(model)
        try:
            self.context = Context(model, options)
        except ModelError as error:
            return failed(str(error), self._less_memory())
        length = options.num_cells // options.max_sequences
        each = (
            f"{length} tokens"
            if options.max_sequences == 1
            else f"{options.max_sequences} of {length} tokens"
        )
        if length > model.context_length:
            return warned(
                f"{each}, but {model.name} was made for {model.context_length}: what goes past that is gibberish",
                f"set n_ctx to {model.context_length} or less",
            )
        return passed(f"{each}, as {model.name} allows ({model.context_length})")

    def check_threads(self) -> Finding:
        """Whether there is a processor for each thread: with more, they wait for each other."""
        threads, usable = self.settings.threads, usable_processors()
        if threads > usable:
            return warned(f"{threads}, but {usable} can run at once", f"set threads to {usable}")
        return passed(f"{threads} of {usable} that can run at once")

    def check_speed(self) -> Finding:
        """How many tokens a second the model makes, one after another."""
        assert self.context is not None  # the context's check comes first
        model = self._loaded()
        length = min(_SPEED_TOKENS + 1, self.context.options.num_cells)
        ids = [index % model.num_meant for index in range(length)]
        self.context.decode([Span(0, 0, ids[:1], num_logits=1)])  # the first one also reads the file
        started_s = time.monotonic()
        count = 0
        for position in range(1, length):
            self.context.decode([Span(0, position, [ids[position]], num_logits=1)])
            count += 1
            if time.monotonic() - started_s > _SPEED_S:
                break
        self.context.truncate(0, 0)
        speed = count / (time.monotonic() - started_s)
        told = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
        return passed(f"{told} tokens a second, one at a time", tokens_per_s=round(speed, 3))

    def check_clock(self, *, matters: bool) -> Finding:
        """Whether the clock can be right; `matters` where certificates are judged by it."""
        now = datetime.now(UTC)
        told = f"{now:%Y-%m-%d %H:%M} UTC"
        newest_s = now.timestamp() + _CLOCK_BEHIND_S
        newer = [file for file in self._dated_files() if file.stat().st_mtime > newest_s]
        if newer:
            written = datetime.fromtimestamp(newer[0].stat().st_mtime, UTC)
            found = f"it says {told}, but {newer[0]} was written on {written:%Y-%m-%d}: it is behind"
            mend = "set the clock (timedatectl)"
            return failed(found, mend) if matters else warned(found, mend)
        if clock_is_kept():
            return passed(f"{told}, kept by a time service")
        if matters:
            return warned(
                f"{told}, but no service keeps it: once it is wrong, no certificate is trusted",
                "run systemd-timesyncd or chrony",
            )
        return passed(f"{told}; no service keeps it, and nothing depends on it without TLS")

    def _loaded(self) -> Model:
        assert self.model is not None  # the model's check comes first
        return self.model

    def _less_memory(self) -> str:
        options = self._options(self._loaded())
        fewer = "" if options.max_sequences == 1 else " or max_sessions"
        return f"lower n_ctx (now {options.num_cells // options.max_sequences}){fewer}"

    def _secret_files(self) -> set[Path]:
        """The files that hold a password or a key."""
        settings = self.settings
        found = {file for file in (settings.credentials, settings.key_file) if file is not None}
        if self._config is not None and _holds_password(self._config):
            found.add(self._config)
        return found

    def _dated_files(self) -> list[Path]:
        """Files that were written while some clock was right."""
        settings = self.settings
        named = (settings.model, settings.credentials, settings.ca_file, settings.cert_file, Path(__file__))
        return [file for file in named if file is not None and file.is_file()]


def _others_can_read(file: Path) -> bool:
    """Whether the file is open to all, and every folder on the way to it."""
    try:
        path = file.resolve()
        return bool(path.stat().st_mode & stat.S_IROTH) and all(
            parent.stat().st_mode & stat.S_IXOTH for parent in path.parents
        )
    except OSError:  # where it is needed, its own check says that it is missing
        return False


def _holds_password(config: Path) -> bool:
    """Whether a file of settings that was understood holds a password, in its own line or in the address."""
    found = tomllib.loads(config.read_text("utf-8"))
    return "password" in found or urlsplit(str(found.get("broker", ""))).password is not None


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
