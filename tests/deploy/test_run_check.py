"""`run --check`, by which an installer knows before it touches a service whether the settings work."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.end_to_end.stage import DRAFT_MODEL, command
from tests.mqtt_helpers import DEADLINE_S

PROGRAMS = ["edge-agent", "cloud-broker-worker"]


def check(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = command(program, "run", "--check", *options)
    return subprocess.run(
        argv, env=os.environ.copy(), capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_settings_that_work_are_told_in_a_line_and_nothing_is_connected(program):
    broker = "mqtt://somebody:secret@broker.invalid:1883"  # a host that does not exist
    done = check(program, "--model", str(DRAFT_MODEL), "--name", "here", "--broker", broker)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert "here could " in line
    assert line.endswith("at broker.invalid:1883")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "missing.gguf"], "model file missing.gguf does not exist"),
        (["--model", str(DRAFT_MODEL), "--n-ctx", "1"], "--n-ctx"),
        (["--model", str(DRAFT_MODEL), "--credentials", "missing.toml"], "cannot read credentials"),
    ],
)
def test_settings_that_cannot_work_are_one_line_and_exit_code_2(program, options, said):
    done = check(program, *options)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line
