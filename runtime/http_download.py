"""A file from the web that survives a bad line. In: a URL. Out: its bytes in a file, going on where it stopped.

Nothing here says that the bytes are right: whoever calls compares a checksum.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.backoff import Backoff
from runtime.transfer import CHUNK_BYTES, Report, progress, require_room
from schemas.errors import ConfigurationError, DownloadError

_SILENCE_S = 30.0  # a server that says nothing for so long has gone
_MAX_USELESS_TRIES = 5  # in a row, without a byte gained
# Too busy, or broken for the moment: what waiting may mend.
_PASSING_CODES = {408, 425, 429, 500, 502, 503, 504}


class _Interrupted(Exception):
    """The transfer stopped before its end; what came is kept."""


def download(url: str, part: Path) -> None:
    """Bring all of `url` into `part`, after what is there already; tries again as long as it gets further.

    Raises ConfigurationError for an address without a file and for a disk without room, DownloadError where
    the network fails; what came stays in `part` for the next call.
    """
    backoff, num_useless = Backoff(base_s=1.0, max_s=10.0), 0
    began_with = _size(part)
    with progress(url.rpartition("/")[2]) as report:
        while True:
            before = _size(part)
            try:
                _fetch_rest(url, part, report)
            except _Interrupted as error:
                num_useless = 0 if _size(part) > before else num_useless + 1
                if _size(part) == began_with or num_useless == _MAX_USELESS_TRIES:
                    raise DownloadError(
                        f"{url}: {error}; try again, it goes on after the {_size(part)} bytes that are here"
                    ) from error
                time.sleep(backoff.next_delay_s())
            else:
                _tag_file(part).unlink(missing_ok=True)
                return


def discard(part: Path) -> None:
    """Forget what a download has brought."""
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _fetch_rest(url: str, part: Path, report: Report) -> None:
    """One request, for all that is missing."""
    try:
        with _answer(url, part) as response:
            start = _start_of(response, part)
            length = response.headers.get("Content-Length")
            total = None if length is None else start + int(length)
            if total is not None:
                require_room(part.parent, total - start)
            _append(response, part, start, total, report)
    except _AlreadyComplete:
        return


class _AlreadyComplete(Exception):
    """There is nothing after what is here."""


@contextmanager
def _answer(url: str, part: Path) -> Iterator[Any]:
    """The server's answer, whole or from where the part ends; its errors in our words."""
    request = urllib.request.Request(url, headers=_wanted(part))  # noqa: S310  callers give http and https only
    try:
        with urllib.request.urlopen(request, timeout=_SILENCE_S) as response:  # noqa: S310
            yield response
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if (error.headers.get("Content-Range") or "") == f"bytes */{_size(part)}":
                raise _AlreadyComplete from error
            discard(part)
            raise _Interrupted("the file there is not the one that was begun") from error
        if error.code in _PASSING_CODES:
            raise _Interrupted(f"the server says {error.code} {error.reason}") from error
        raise ConfigurationError(
            f"{url}: the server says {error.code} {error.reason}; check the address"
        ) from error
    except urllib.error.URLError as error:
        reason = error.reason
        raise _Interrupted(getattr(reason, "strerror", None) or str(reason)) from error
    except http.client.InvalidURL as error:
        raise ConfigurationError(f"{url} is no web address: {error}") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Interrupted("the connection was lost") from error


def _wanted(part: Path) -> dict[str, str]:
    """Ask for the rest of what was begun, if it is still the same file there; else for all of it."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "hunch"}
    if size := _size(part):
        headers["Range"] = f"bytes={size}-"
        if _tag_file(part).exists():
            headers["If-Range"] = _tag_file(part).read_text()
    return headers


def _start_of(response: Any, part: Path) -> int:
    """Where the answer's first byte belongs; for a whole answer also remember which file it is of."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
        if found and int(found[1]) == _size(part):
            return _size(part)
        discard(part)
        raise _Interrupted("the server sent another range than it was asked for")
    discard(part)
    tag = response.headers.get("ETag")
    if tag and tag.startswith('"'):  # a weak one does not promise the same bytes
        _tag_file(part).write_text(tag)
    return 0


def _append(response: Any, part: Path, start: int, total: int | None, report: Report) -> None:
    with part.open("ab") as file:
        here = start
        report(here, total)
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            here += len(chunk)
            report(here, total)
    if total is not None and here < total:  # http.client takes an early end for the end
        raise _Interrupted("the connection was lost")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")
