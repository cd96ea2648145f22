"""`cloud-broker-worker broker …` as it is typed: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud_broker_worker import broker as broker_module
from cloud_broker_worker import cli
from cloud_broker_worker.provision.cli import lines
from cloud_broker_worker.provision.folder import write_atomically
from cloud_broker_worker.provision.roster import Certificate, Member, Proof, Roster
from schemas.topics import Role


class Shell:
    """Types commands about one folder."""

    def __init__(self, folder: Path, capsys, monkeypatch) -> None:
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch

    def __call__(self, *words: object) -> str:
        """What a command says that must succeed."""
        code, out, err = self.run(*words)
        assert (code, err) == (0, "")
        return out

    def refusal(self, *words: object) -> str:
        """The one line of a command that must fail for what it was given."""
        code, out, err = self.run(*words)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"cloud-broker-worker: [^\n]+\n", err), err
        return err

    def run(self, *words: object) -> tuple[int, str, str]:
        argv = ["cloud-broker-worker", "broker", *map(str, words), "--folder", str(self.folder)]
        self._monkeypatch.setattr(sys, "argv", argv)
        return (cli.main(), *self._capsys.readouterr())


@pytest.fixture
def shell(capsys, monkeypatch) -> Iterator[Shell]:
    """Not in pytest's folder: where root runs the tests, Mosquitto's own account must get through."""
    with tempfile.TemporaryDirectory(prefix="hunch-commands-") as top:
        Path(top).chmod(0o755)
        yield Shell(Path(top, "broker"), capsys, monkeypatch)


@pytest.fixture
def board(shell: Shell) -> Shell:
    """A broker with one board."""
    shell("init", "--host", "broker.example")
    shell("add-agent", "board-7")
    return shell


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_init_says_how_to_go_on_and_a_second_time_changes_nothing(shell):
    said = shell("init", "--host", "broker.example", "--host", "10.0.0.7")
    assert f"mosquitto -c {shell.folder}/mosquitto/mosquitto.conf" in said
    before = content(shell.folder)
    assert "was there already; nothing changed" in shell(
        "init", "--host", "broker.example", "--host", "10.0.0.7"
    )
    assert content(shell.folder) == before


def test_init_with_other_settings_does_not_touch_a_broker_that_is_there(board):
    before = content(board.folder)
    assert "already holds a broker with another hosts" in board.refusal("init", "--host", "other.example")
    assert "another proof" in board.refusal("init", "--host", "broker.example", "--passwords")
    assert content(board.folder) == before


def test_only_the_owner_can_read_anything_and_the_broker_cannot_read_the_authoritys_key(board):
    for path in board.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    secrets = [board.folder / "authority" / "authority.key", board.folder / "credentials" / "board-7.toml"]
    if os.geteuid() == 0:
        assert {path.owner() for path in (board.folder / "mosquitto").rglob("*")} <= {"mosquitto", "nobody"}
        assert {path.owner() for path in secrets} == {"root"}
    key = secrets[0].read_text()
    assert not any(key.encode() in text for path, text in content(board.folder / "mosquitto").items())


def test_each_role_has_its_command_and_is_told_how_to_use_its_file(board):
    for role in Role:
        assert f" my-{role.value}.toml" in board(f"add-{role.value}", f"my-{role.value}")
    listed = board("list")
    assert [line.split()[0] for line in listed.splitlines()[2:]] == [
        "board-7",
        *sorted(f"my-{role.value}" for role in Role),
    ]


def test_a_name_that_is_taken_unknown_or_unusable_is_one_clear_line(board):
    before = content(board.folder)
    assert "there is already agent 'board-7'" in board.refusal("add-agent", "board-7")
    assert "there is already agent 'board-7'" in board.refusal("add-worker", "board-7")
    for command in ("revoke", "rotate"):
        assert "there is no 'board-8' at this broker" in board.refusal(command, "board-8")
    for name in ("a/b", "+", "a b", "x" * 65):
        assert "cannot be used" in board.refusal("add-agent", name)
    assert content(board.folder) == before


def test_revoking_while_the_broker_is_down_says_so(board):
    assert "the broker does not run, and will refuse it when it starts" in board("revoke", "board-7")
    assert re.search(r"board-7 +agent +revoked \d{4}-", board("list"))
    assert "'board-7' is revoked already" in board.refusal("revoke", "board-7")
    board("add-agent", "board-7")


def test_rotating_says_how_long_the_old_certificate_is_good(board):
    assert re.search(r"the old ones are good until \d{4}-", board("rotate", "board-7"))
    assert "the old ones" not in board("rotate", "board-7", "--at-once")
    assert re.search(r"good until \d{4}-", board("rotate-server"))


def test_with_passwords_the_file_holds_one_and_the_broker_its_hash(shell):
    shell("init", "--host", "broker.example", "--passwords")
    shell("add-agent", "board-7")
    text = (shell.folder / "credentials" / "board-7.toml").read_text()
    password = tomllib.loads(text)["password"]
    assert "PRIVATE KEY" not in text
    assert (shell.folder / "mosquitto" / "passwords").read_text().startswith("board-7:$7$")
    assert not any(password.encode() in held for path, held in content(shell.folder / "mosquitto").items())
    assert "password" in shell("list").splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "host is not set"),
        (("--host", "no spaces"), "'no spaces' is not a host name or address"),
        (("--host", "a.example", "--port", "70000"), "--port"),
        (("--host", "a.example", "--bind-address", "everywhere"), "'everywhere' is not an address"),
        (("--host", "a.example", "--topic-root", "a/#"), "cannot be used"),
        (("--host", "a.example", "--days", "0"), "--days"),
    ],
)
def test_a_setting_that_cannot_work_is_one_clear_line_and_leaves_nothing(words, line, shell):
    assert line in shell.refusal("init", *words)
    assert not shell.folder.exists()


def test_a_folder_of_something_else_is_left_alone(shell):
    shell.folder.mkdir()
    (shell.folder / "thesis.txt").write_text("mine")
    assert "exists and is no broker's folder" in shell.refusal("init", "--host", "a.example")
    assert [path.name for path in shell.folder.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_or_holds_no_broker_is_named(shell):
    assert "holds no broker; `broker init` makes one" in shell.refusal("list")
    shell.folder.write_text("a file")
    shell.folder = shell.folder / "below"
    assert "Not a directory" in shell.refusal("init", "--host", "a.example")


@pytest.mark.skipif(os.geteuid() != 0, reason="only for root does Mosquitto change its account")
def test_a_folder_that_the_brokers_account_cannot_reach_is_refused(shell):
    shell.folder.parent.chmod(0o700)
    assert "the broker's account cannot pass" in shell.refusal("init", "--host", "a.example")


def test_a_damaged_roster_is_named_and_not_overwritten(board):
    roster = board.folder / "roster.json"
    roster.write_text("{")
    assert "roster.json is damaged" in board.refusal("add-agent", "board-8")
    assert roster.read_text() == "{"


def test_a_missing_mosquitto_is_one_clear_line(shell, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(broker_module, "_MORE_FOLDERS", ())
    assert "mosquitto is not installed" in shell.refusal("init", "--host", "a.example")
    assert not shell.folder.exists()


def test_a_missing_cryptography_is_one_clear_line(shell, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("cloud_broker_worker.provision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert "pip install cryptography" in shell.refusal("init", "--host", "a.example")


def test_an_unknown_command_lists_those_there_are(shell):
    assert "there is no command 'destroy'; choose from init, add-agent" in shell.refusal("destroy")


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    file = tmp_path / "acl"
    write_atomically(file, "old")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, "new")
    assert content(tmp_path) == {file: b"old"}


def test_the_list_warns_of_what_expires_soon_or_has():
    now = datetime(2030, 1, 1, tzinfo=UTC)

    def good_for(days: int) -> Certificate:
        return Certificate(serial=days, until=now + timedelta(days=days))

    members = (
        Member(name="a", role=Role.AGENT, certificates=(good_for(-1), good_for(100))),
        Member(name="b", role=Role.AGENT, certificates=(good_for(-2),)),
    )
    roster = Roster(
        hosts=("h",),
        port=1,
        bind_address="::",
        topic_root="hunch/v1",
        proof=Proof.CERTIFICATES,
        server=good_for(9),
        members=members,
    )
    assert list(lines(roster, now + timedelta(days=3000), now)) == [
        "authority            until 2038-03-20",
        "broker               until 2030-01-10, 9 days left",
        "a          agent     until 2030-04-11",
        "b          agent     EXPIRED 2029-12-30",
    ]


def test_the_access_list_for_emqx_follows_who_is_let_in(board):
    assert '{user, "board-7"}, publish, ["hunch/v1/agents/board-7/status"]' in board("emqx-acl")
    board("revoke", "board-7")
    assert "board-7" not in board("emqx-acl")
