"""Model files, brought here and checked before anyone uses them. In: a source, a folder. Out: a whole GGUF file in it.

A source is a path, a URL (with a checksum), or a file on a model hub: `hf:OWNER/NAME/FILE.gguf` or, by a pattern
that one file fits, `hf:OWNER/NAME:*q4_k_m.gguf`. What is not complete and checked never has its final name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import glob
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from runtime.content_digest import content_digest
from runtime.http_download import discard, download
from runtime.llama import Model, download_from_hub
from runtime.transfer import CHUNK_BYTES, progress, replace_durably, require_room, sha256_of
from schemas.errors import ConfigurationError

_SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_HUB_CACHE = ".hub"
_HUB_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


def fetch_model(source: str, folder: Path, *, sha256: str | None = None) -> Path:
    """Bring a model into the folder, unless it is there already; returns its path.

    Raises ConfigurationError for what the source, the checksum, the file or the disk cannot give, DownloadError
    for a network that fails: what came is kept then, and the next call goes on from there.
    """
    wanted = None if sha256 is None else _checked_form(sha256)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _alone_in(folder):
            if source.startswith("hf:"):
                return _from_hub(source, folder, wanted)
            if source.startswith(("http://", "https://")):
                return _from_web(source, folder, wanted)
            return _from_path(Path(source), folder, wanted)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ConfigurationError(f"the disk of {folder} is full; make room, then try again") from error


def check_model_file(path: Path, *, called: str | None = None) -> None:
    """Raise ConfigurationError unless llama.cpp reads the file's vocabulary and all its weights are there.

    `called` is what the user knows the file by.
    """
    name = called or str(path)
    with path.open("rb") as file:
        begins = file.read(len(_MAGIC))
    if begins != _MAGIC:
        raise ConfigurationError(f"{name} is no GGUF file: it begins with {begins!r}, not {_MAGIC!r}")
    try:
        Model(path, vocab_only=True).close()
    except ConfigurationError as error:
        reason = str(error).replace(str(path), name)
        raise ConfigurationError(reason) from error


def _checked_form(sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigurationError(f"{sha256!r} is no SHA-256 checksum: it has 64 hexadecimal digits")
    return sha256.lower()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until nobody else fetches into the folder: two at once would write into one part."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _require_checksum(path: Path, wanted: str, called: str) -> None:
    found = sha256_of(path)
    if found != wanted:
        raise ConfigurationError(
            f"{called} has the checksum {found}, not {wanted}: it is another file, or it came broken"
        )


# ---------------------------------------------------------------------------------------- from a path


def _from_path(file: Path, folder: Path, wanted: str | None) -> Path:
    if not file.is_file():
        raise ConfigurationError(
            f"model file {file} does not exist; give a path, https://… or hf:OWNER/NAME/FILE{_SUFFIX}"
        )
    if wanted is not None:
        _require_checksum(file, wanted, str(file))
    check_model_file(file)
    target = folder / file.name
    if not _same_content(file, target):
        _copy(file, target)
    return target


def _same_content(file: Path, target: Path) -> bool:
    """Whether the file is there already; by size and samples of its content, as a whole reading takes minutes."""
    return target.is_file() and (file.samefile(target) or content_digest(file) == content_digest(target))


def _copy(file: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    total = file.stat().st_size
    part.unlink(missing_ok=True)
    require_room(target.parent, total)
    try:
        with file.open("rb") as source, part.open("wb") as copy, progress(file.name) as report:
            while chunk := source.read(CHUNK_BYTES):
                copy.write(chunk)
                report(copy.tell(), total)
        check_model_file(part, called=str(target))
        replace_durably(part, target)
    finally:
        part.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------- from the web


def _from_web(url: str, folder: Path, wanted: str | None) -> Path:
    name = _name_in(url)
    if wanted is None:
        raise ConfigurationError(
            f"{url} needs its checksum, from where the model is published: give --sha256"
        )
    target = folder / name
    if target.is_file() and sha256_of(target) == wanted:
        check_model_file(target)
        return target
    part = folder / f".{name}.{wanted[:16]}.part"
    try:
        download(url, part)
        _require_checksum(part, wanted, url)
        check_model_file(part, called=url)
    except (ConfigurationError, OSError):  # not what was asked for, or no room for it: nothing to go on from
        discard(part)
        raise
    replace_durably(part, target)
    return target


def _name_in(url: str) -> str:
    """The file's name; a URL with a password is refused, since it would show in lists of processes and logs."""
    try:
        parts = urlsplit(url)
        name = PurePosixPath(unquote(parts.path)).name
        has_user, has_host = "@" in parts.netloc, bool(parts.hostname)
    except ValueError as error:
        raise ConfigurationError(f"{url} is no web address: {error}") from error
    if has_user:
        raise ConfigurationError("give the model's address without user and password")
    if not has_host or not re.fullmatch(rf"[\w+-][\w.+-]*{re.escape(_SUFFIX)}", name):
        raise ConfigurationError(f"{url} does not end with the name of a {_SUFFIX} file")
    return name


# -------------------------------------------------------------------------------------- from a model hub


def _from_hub(source: str, folder: Path, wanted: str | None) -> Path:
    """The file keeps the hub's own place for it, `OWNER/NAME/FILE`, below the folder."""
    repository, pattern = _hub_reference(source)
    found = _already_here(folder / repository, pattern)
    if found is not None and (wanted is None or sha256_of(found) == wanted):
        check_model_file(found, called=source)
        return found
    cache = folder / _HUB_CACHE
    path = download_from_hub(repository, pattern, cache)
    content = path.resolve()
    # The hub names a large file by its SHA-256; a small one that stands in git itself, by another hash.
    promised = wanted or (content.name if re.fullmatch(r"[0-9a-f]{64}", content.name) else None)
    try:
        if promised is not None:
            _require_checksum(content, promised, source)
        check_model_file(content, called=source)
        # cache/models--OWNER--NAME/snapshots/COMMIT/PATH
        target = folder.joinpath(repository, *path.relative_to(cache).parts[3:])
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(content, target)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return target


def _hub_reference(source: str) -> tuple[str, str]:
    """`hf:OWNER/NAME/FILE.gguf` or `hf:OWNER/NAME:PATTERN` → `OWNER/NAME` and what the file must fit."""
    owner, _, rest = source.removeprefix("hf:").partition("/")
    name, separator, pattern = re.fullmatch(r"([^/:]*)([/:]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    fits = _HUB_NAME.fullmatch(owner) and _HUB_NAME.fullmatch(name) and ".." not in pattern.split("/")
    if not fits or not pattern or not pattern.endswith(_SUFFIX):
        raise ConfigurationError(
            f"{source} is no file on a model hub; write hf:OWNER/NAME/FILE{_SUFFIX} or hf:OWNER/NAME:*q4_k_m{_SUFFIX}"
        )
    return f"{owner}/{name}", pattern if separator == ":" else glob.escape(pattern)


def _already_here(folder: Path, pattern: str) -> Path | None:
    """The one file that fits; None where the hub must say which."""
    names = [path for path in folder.rglob(f"*{_SUFFIX}") if path.is_file()] if folder.is_dir() else []
    found = [path for path in names if fnmatch.fnmatch(str(path.relative_to(folder)), pattern)]
    return found[0] if len(found) == 1 else None
