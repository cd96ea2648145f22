"""What of the shell scripts can be tried without becoming root; deploy/install/try.sh tries the rest."""

from __future__ import annotations

import grp
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "deploy").rglob("*.sh"))
SAMPLE = ROOT / "deploy/install/agent.toml"


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the installer with arguments that make it end before it does anything."""
    return subprocess.run(
        [str(ROOT / "deploy/install.sh"), *arguments], capture_output=True, text=True, check=False
    )


def change(config: Path, function: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call one of the installer's own functions on a file of settings."""
    functions = 'say() { printf "%s\\n" "$*"; }; give_up() { echo "$*" >&2; exit 1; }'
    script = f'set -eu; . "{ROOT}/deploy/install/settings.sh"; {functions}; {function} "$@"'
    env = os.environ | {"CONFIG": str(config), "HUNCH_USER": grp.getgrgid(os.getegid()).gr_name}
    argv = ["bash", "-c", script, "bash", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text(SAMPLE.read_text())
    return file


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_the_script(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_names_every_option():
    done = install("--help")
    assert done.returncode == 0
    for option in ("--model", "--sha256", "--credentials", "--broker", "--name", "--uninstall", "--purge"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to install: agent or worker"),
        (["agent", "worker"], "one of agent and worker at a time"),
        (["agent", "--model"], "--model needs a value"),
        (["agent", "--model", "--purge"], "--model needs a value"),
        (["agent", "--modle", "x"], "there is no option or role --modle"),
        (["agent", "--purge"], "--purge goes with --uninstall"),
        (["agent", "--sha256", "0"], "--sha256 goes with --model"),
        (["agent", "--credentials", "a", "--name", "b"], "credentials bring broker and name"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments, said):
    done = install(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_setting_takes_the_place_of_its_line_and_all_else_stays(config):
    before = config.read_text().splitlines()
    assert change(config, "set_line", "model", "/models/other & new.gguf").returncode == 0
    after = config.read_text().splitlines()
    assert [new for old, new in zip(before, after, strict=True) if old != new] == [
        'model = "/models/other & new.gguf"'
    ]


def test_a_setting_that_the_file_only_proposes_is_set_in_that_place(config):
    number = next(
        index for index, line in enumerate(SAMPLE.read_text().splitlines()) if line.startswith("# broker = ")
    )
    change(config, "set_line", "broker", "mqtts://b.example")
    assert config.read_text().splitlines()[number] == 'broker = "mqtts://b.example"'


def test_a_setting_that_the_file_does_not_know_goes_to_the_top(config):
    config.write_text("[table]\nname = 'x'\n".replace("name", "other"))
    change(config, "set_line", "name", "board-1")
    assert config.read_text() == "name = \"board-1\"\n[table]\nother = 'x'\n"


def test_a_line_that_is_right_is_not_written_again(config):
    change(config, "set_line", "name", "board-1")
    before = config.stat().st_ino
    change(config, "set_line", "name", "board-1")
    assert config.stat().st_ino == before


def test_lines_that_are_unset_stay_as_proposals(config):
    for name, value in (("broker", "mqtt://b.example"), ("name", "board-1"), ("model", "m.gguf")):
        change(config, "set_line", name, value)
    assert change(config, "unset_lines", "broker", "name", "password").returncode == 0
    lines = config.read_text().splitlines()
    assert '# broker = "mqtt://b.example"' in lines
    assert '# name = "board-1"' in lines
    assert 'model = "m.gguf"' in lines
    assert len(lines) == len(SAMPLE.read_text().splitlines())


def test_a_value_that_would_break_the_file_is_refused(config):
    done = change(config, "set_line", "name", 'x"\nmode = "edge')
    assert done.returncode == 1
    assert "name must not hold quotes" in done.stderr
    assert config.read_text() == SAMPLE.read_text()
