"""Models from paths, and from a web server on loopback that breaks down."""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime import http_download
from runtime.model_files import fetch_model
from schemas.errors import ConfigurationError, DownloadError
from tests.end_to_end.stage import DRAFT_MODEL, TARGET_MODEL
from tests.web_server import WebServer

CONTENT = DRAFT_MODEL.read_bytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "/draft.gguf"
HALF = len(CONTENT) // 2


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer({NAME: CONTENT}) as server:
        yield server


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def holds(folder: Path) -> set[str]:
    """Every file below the folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def fetch(web: WebServer, models: Path, sha256: str | None = SHA256) -> Path:
    return fetch_model(web.address + NAME, models, sha256=sha256)


# ------------------------------------------------------------------------------------------- paths


def test_a_local_model_is_copied_whole_and_nothing_else_is_left(models):
    path = fetch_model(str(DRAFT_MODEL), models, sha256=SHA256.upper())
    assert path == models / DRAFT_MODEL.name
    assert path.read_bytes() == CONTENT
    assert holds(models) == {DRAFT_MODEL.name}


def test_a_model_that_is_there_already_is_not_written_again(models):
    path = fetch_model(str(DRAFT_MODEL), models)
    before = path.stat()
    assert fetch_model(str(DRAFT_MODEL), models) == path
    assert fetch_model(str(path), models) == path
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_model_of_the_same_name_takes_the_place_of_the_old_one(models, tmp_path):
    fetch_model(str(DRAFT_MODEL), models)
    other = tmp_path / DRAFT_MODEL.name
    shutil.copy(TARGET_MODEL, other)
    assert fetch_model(str(other), models).read_bytes() == TARGET_MODEL.read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no GGUF file: it begins with b''"),
        (b"<html><body>not found</body>", "no GGUF file: it begins with b'<htm'"),
        (CONTENT[:100], "cannot load"),
        (CONTENT[:-1], "not within the file bounds"),
    ],
    ids=["empty", "a web page", "cut in the head", "one byte short"],
)
def test_what_is_no_whole_model_is_refused_by_the_name_the_user_gave(content, reason, models, tmp_path):
    file = tmp_path / "draft.gguf"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason) as refused:
        fetch_model(str(file), models)
    assert str(file) in str(refused.value)
    assert holds(models) == set()


def test_a_missing_file_and_a_wrong_checksum_are_one_clear_line(models):
    with pytest.raises(ConfigurationError, match="does not exist; give a path, https"):
        fetch_model("nowhere.gguf", models)
    with pytest.raises(ConfigurationError, match=f"has the checksum {SHA256}, not {'0' * 64}"):
        fetch_model(str(DRAFT_MODEL), models, sha256="0" * 64)
    with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
        fetch_model(str(DRAFT_MODEL), models, sha256="abc")
    assert holds(models) == set()


def test_a_disk_without_room_is_found_before_anything_is_written(models, monkeypatch, web):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10**6))
    for source in (str(DRAFT_MODEL), web.address + NAME):
        with pytest.raises(ConfigurationError, match=r"has 1 MB free, 69 MB are needed"):
            fetch_model(source, models, sha256=SHA256)
    assert holds(models) == set()


# -------------------------------------------------------------------------------------------- the web


def test_a_download_is_checked_and_kept_under_its_name(web, models):
    path = fetch(web, models)
    assert path.read_bytes() == CONTENT
    assert holds(models) == {"draft.gguf"}
    assert fetch(web, models) == path
    assert len(web.gets(NAME)) == 1  # the second time nobody was asked


def test_a_cut_connection_is_taken_up_where_it_broke(web, models):
    web.drop_after += [HALF, 1000]
    assert fetch(web, models).read_bytes() == CONTENT
    first, second, third = web.gets(NAME)
    assert "Range" not in first
    assert second["Range"] == f"bytes={HALF}-"
    assert third["Range"] == f"bytes={HALF + 1000}-"
    assert second["If-Range"] == f'"{SHA256}"'


def test_a_later_call_goes_on_from_what_an_earlier_one_has_brought(web, models):
    web.drop_after += [HALF] + [0] * 9
    with pytest.raises(DownloadError, match=f"the connection was lost; .* after the {HALF} bytes"):
        fetch(web, models)
    assert not (models / "draft.gguf").exists()
    web.drop_after.clear()
    web.requests.clear()
    assert fetch(web, models).read_bytes() == CONTENT
    assert web.gets(NAME)[0]["Range"] == f"bytes={HALF}-"
    assert holds(models) == {"draft.gguf"}


def test_a_file_that_has_changed_on_the_server_is_begun_anew(web, models):
    web.drop_after += [HALF] + [0] * 9
    with pytest.raises(DownloadError):
        fetch(web, models)
    web.drop_after.clear()
    web.files[NAME] = b"\0" * 100  # another file: what is here is no part of it
    with pytest.raises(ConfigurationError, match="has the checksum"):
        fetch(web, models)
    assert holds(models) == set()
    web.files[NAME] = CONTENT
    assert fetch(web, models).read_bytes() == CONTENT


@pytest.mark.parametrize("faults", [{"has_ranges": False}, {"has_tags": False}, {"states_length": False}])
def test_servers_that_know_no_ranges_tags_or_lengths_serve_as_well(faults, web, models):
    for name, value in faults.items():
        setattr(web, name, value)
    if "states_length" not in faults:  # without a length an early end looks like the end
        web.drop_after.append(HALF)
    assert fetch(web, models).read_bytes() == CONTENT


def test_a_download_that_ended_just_before_its_check_asks_for_nothing_more(web, models):
    models.mkdir()
    (models / f".draft.gguf.{SHA256[:16]}.part").write_bytes(CONTENT)
    assert fetch(web, models).read_bytes() == CONTENT
    assert holds(models) == {"draft.gguf"}


def test_a_part_that_is_longer_than_the_file_is_thrown_away(web, models):
    models.mkdir()
    (models / f".draft.gguf.{SHA256[:16]}.part").write_bytes(CONTENT + b"more")
    assert fetch(web, models).read_bytes() == CONTENT


def test_a_server_that_is_busy_is_asked_again_once_something_has_come(web, models, monkeypatch):
    web.drop_after.append(HALF)
    monkeypatch.setattr(time, "sleep", lambda _s: len(web.requests) == 1 and web.answer_codes.append(503))
    assert fetch(web, models).read_bytes() == CONTENT
    assert len(web.requests) == 3


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (404, ConfigurationError, "the server says 404 Not Found; check the address"),
        (403, ConfigurationError, "the server says 403 Forbidden"),
        (503, DownloadError, "the server says 503 Service Unavailable; try again"),
    ],
)
def test_a_refusal_is_one_line_with_the_servers_reason(code, error, said, web, models):
    web.answer_codes.append(code)
    with pytest.raises(error, match=said):
        fetch(web, models)
    assert holds(models) == set()


def test_a_wrong_checksum_and_a_web_page_in_the_models_place_leave_nothing_behind(web, models):
    with pytest.raises(ConfigurationError, match="is another file, or it came broken"):
        fetch(web, models, sha256="0" * 64)
    page = b"<html>please log in</html>"
    web.files[NAME] = page
    with pytest.raises(ConfigurationError, match=r"draft\.gguf is no GGUF file"):
        fetch(web, models, sha256=hashlib.sha256(page).hexdigest())
    assert holds(models) == set()


def test_a_file_cut_short_is_refused_though_its_checksum_is_right(web, models):
    web.files[NAME] = CONTENT[:-1]
    with pytest.raises(ConfigurationError, match=r"http.*draft\.gguf.*not within the file bounds"):
        fetch(web, models, sha256=hashlib.sha256(CONTENT[:-1]).hexdigest())
    assert holds(models) == set()


def test_a_refused_connection_says_so_at_once(models):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{holder.getsockname()[1]}{NAME}"
        with pytest.raises(DownloadError, match="Connection refused; try again"):
            fetch_model(url, models, sha256=SHA256)


def test_a_disk_that_fills_up_during_a_download_leaves_no_part_behind(web, models, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(http_download, "_append", full)
    with pytest.raises(ConfigurationError, match=r"disk of .* is full; make room"):
        fetch(web, models)
    assert holds(models) == set()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/draft.bin", "does not end with the name of a .gguf file"),
        ("http://127.0.0.1:1/.hidden.gguf", "does not end with the name"),
        ("http://127.0.0.1:1/..%2Fescape.gguf?x=1", "127.0.0.1"),
        ("http:///draft.gguf", "does not end with the name"),
        ("http://user:secret@127.0.0.1/draft.gguf", "without user and password"),
        ("http://[::1/draft.gguf", "is no web address"),
    ],
)
def test_addresses_that_cannot_be_are_refused_and_no_password_is_repeated(url, said, models):
    with pytest.raises((ConfigurationError, DownloadError), match=said) as refused:
        fetch_model(url, models, sha256=SHA256)
    assert "secret" not in str(refused.value)


def test_a_download_without_a_checksum_is_not_begun(web, models):
    with pytest.raises(ConfigurationError, match="needs its checksum"):
        fetch(web, models, sha256=None)
    assert web.requests == []


# ------------------------------------------------------------------------- a hub: see test_model_hub.py


@pytest.mark.parametrize(
    "source",
    [
        "hf:",
        "hf:owner/name",
        "hf:owner/name/",
        "hf:owner/name/../x.gguf",
        "hf:../name/x.gguf",
        "hf:o/n/README.md",
    ],
)
def test_what_is_no_file_on_a_hub_is_refused_before_anybody_is_asked(source, models):
    with pytest.raises(ConfigurationError, match="is no file on a model hub; write hf:OWNER/NAME"):
        fetch_model(source, models)
    assert holds(models) == set()
