"""What an agent remembers over restarts: one small file, whole or not at all."""

from __future__ import annotations

import logging

import pytest

from edge_agent.controller import Learned
from edge_agent.memory import Memory

LEARNED = Learned(0.02, debt=3.25, unaudited_cost=0.0625, thresholds={"pair entropy": 0.125})


def test_what_was_saved_comes_back_after_a_restart(tmp_path):
    Memory(tmp_path / "new", "board-7").save(LEARNED, at_once=True)
    assert Memory(tmp_path / "new", "board-7").load() == LEARNED
    assert Memory(tmp_path / "new", "board-8").load() is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["agent-board-7.json"]


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    memory = Memory(None, "board-7")
    memory.save(LEARNED, at_once=True)
    assert memory.load() is None
    assert not list(tmp_path.iterdir())


def test_it_is_written_every_few_minutes_at_most_and_only_when_it_has_changed(tmp_path, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr("edge_agent.memory.time.monotonic", lambda: now_s[0])
    memory, file = Memory(tmp_path, "board-7"), tmp_path / "agent-board-7.json"
    memory.save(LEARNED)
    assert not file.exists()
    now_s[0] += 301
    memory.save(LEARNED)
    assert file.exists()
    file.unlink()
    now_s[0] += 301
    memory.save(LEARNED)
    assert not file.exists()
    memory.save(Learned(0.02, debt=4.0))
    assert file.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"risk":0.02}',
        b'{"risk":0.02,"debt":NaN,"unaudited_cost":0.1,"thresholds":{}}',
        b'{"risk":0.02,"debt":1e9,"unaudited_cost":0.1,"thresholds":{}}',
        b'{"risk":0.02,"debt":1.0,"unaudited_cost":0.1,"thresholds":{"pair":7}}',
        b"[" * 100_000,
    ],
    ids=lambda content: str(content[:20]),
)
def test_a_broken_file_costs_one_line_and_a_careful_start(tmp_path, caplog, content):
    (tmp_path / "agent-board-7.json").write_bytes(content)
    memory = Memory(tmp_path, "board-7")
    with caplog.at_level(logging.WARNING):
        assert memory.load() is None
    assert len(caplog.messages) == 1
    assert "agent-board-7.json" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    memory.save(LEARNED, at_once=True)
    assert memory.load() == LEARNED


def test_a_folder_that_cannot_be_written_to_costs_one_line(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    memory = Memory(tmp_path / "file", "board-7")
    with caplog.at_level(logging.WARNING):
        memory.save(LEARNED, at_once=True)
        memory.save(LEARNED, at_once=True)
    assert [message for message in caplog.messages if "not remembered" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    memory = Memory(tmp_path, "board-7")
    memory.save(LEARNED, at_once=True)

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_agent.memory.Path.replace", fail)
    memory.save(Learned(0.02, debt=9.0), at_once=True)
    assert Memory(tmp_path, "board-7").load() == LEARNED
