"""Models from a model hub on loopback, fetched by the command: its client reads its environment as it starts."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.stage import DRAFT_MODEL, command
from tests.gguf_files import Plan, write_gguf
from tests.mqtt_helpers import DEADLINE_S
from tests.web_server import WebServer

CONTENT = DRAFT_MODEL.read_bytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PLACE = "owner/name/quantised/draft-q4_k_m.gguf"
# The client writes in pieces of this size; what a broken connection has brought of one is lost.
PIECE_BYTES = 10 << 20


@pytest.fixture
def hub() -> Iterator[WebServer]:
    files = {"/quantised/draft-q4_k_m.gguf": CONTENT, "/draft-f16.gguf": b"other", "/README.md": b"read me"}
    with WebServer(files, repository="owner/name") as server:
        yield server


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def fetch(
    source: str, models: Path, address: str, *options: str, program: str = "edge-agent"
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(models.parent / "hub-home")}
    argv = command(program, "fetch-model", source, "--to", str(models), *options)
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=DEADLINE_S * 3)


def holds(folder: Path) -> set[str]:
    """Every file below the folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("source", "program"),
    [
        ("hf:owner/name/quantised/draft-q4_k_m.gguf", "edge-agent"),
        ("hf:owner/name:*q4_k_m.gguf", "cloud-broker-worker"),
    ],
)
def test_a_model_comes_from_a_hub_by_name_or_pattern_and_keeps_its_place(source, program, hub, models):
    done = fetch(source, models, hub.address, program=program)
    assert (done.returncode, done.stdout) == (0, f"{models / PLACE}\n"), done.stderr
    assert (models / PLACE).read_bytes() == CONTENT
    assert not (models / PLACE).is_symlink()
    assert holds(models) == {PLACE}
    hub.requests.clear()
    assert fetch(source, models, hub.address, "--sha256", SHA256).stdout == done.stdout
    assert hub.requests == []


def test_a_hub_that_breaks_off_is_taken_up_where_it_broke(models, tmp_path):
    large = write_gguf(tmp_path / "large.gguf", Plan("large", 150_000, 150_000)).read_bytes()
    with WebServer({"/large.gguf": large}, drop_after=[PIECE_BYTES + 1000], repository="owner/name") as hub:
        broken = fetch("hf:owner/name/large.gguf", models, hub.address)
        assert broken.returncode == 1
        assert broken.stderr == (
            "edge-agent: owner/name on the model hub: the connection was lost; try again, it goes on from there\n"
        )
        assert not (models / "owner").exists()
        done = fetch("hf:owner/name/large.gguf", models, hub.address)
        assert done.returncode == 0, done.stderr
        assert (models / "owner/name/large.gguf").read_bytes() == large
        assert hub.gets("/owner/name/resolve/main/large.gguf")[-1]["Range"] == f"bytes={PIECE_BYTES}-"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf:owner/name:*missing.gguf", "No file found in owner/name that match *missing.gguf"),
        ("hf:owner/name:*.gguf", "Multiple files found in owner/name matching *.gguf"),
        ("hf:owner/other/draft.gguf", "owner/other on the model hub: not found; check its name"),
        ("hf:owner/name/draft-f16.gguf", "draft-f16.gguf"),
    ],
)
def test_what_a_hub_does_not_have_is_one_clear_line(source, said, hub, models):
    done = fetch(source, models, hub.address)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert {Path(name).parts[0] for name in holds(models)} <= {".hub"}


def test_a_file_from_a_hub_is_held_against_the_users_checksum_and_the_hubs_own(hub, models):
    source = "hf:owner/name:*q4_k_m.gguf"
    done = fetch(source, models, hub.address, "--sha256", "0" * 64)
    assert done.returncode == 2
    assert f"has the checksum {SHA256}, not {'0' * 64}" in done.stderr
    hub.stated_checksum = "f" * 64
    assert f"not {'f' * 64}" in fetch(source, models, hub.address).stderr
    assert holds(models) == set()


def test_a_hub_that_cannot_be_reached_is_one_clear_line(models):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        done = fetch("hf:owner/name/draft.gguf", models, f"http://127.0.0.1:{holder.getsockname()[1]}")
    assert done.returncode == 1
    assert done.stderr.endswith("the connection was lost; try again, it goes on from there\n")
    assert len(done.stderr.splitlines()) == 1
