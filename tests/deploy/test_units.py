"""The units as systemd reads them, and the settings that come with them as the programs read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_broker_worker import settings as worker
from edge_agent import settings as agent
from runtime.settings import HunchSettings, load

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy/systemd").glob("hunch-*.service"))
PROGRAMS = {"agent": "edge-agent", "worker": "cloud-broker-worker"}
SETTINGS: dict[str, type[HunchSettings]] = {"agent": agent.RunSettings, "worker": worker.RunSettings}
DEFAULT_FILES = {"agent": agent.DEFAULT_FILE, "worker": worker.DEFAULT_FILE}
MAX_EXPOSURE = 3.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


def role_of(unit: Path) -> str:
    return unit.stem.removeprefix("hunch-")


def installed(unit: Path, folder: Path) -> Path:
    """The unit as it stands once the program is there: systemd looks for it."""
    program = folder / role_of(unit) / "venv/bin" / PROGRAMS[role_of(unit)]
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("ExecStart=/opt/hunch", f"ExecStart={folder}"))
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_there_is_a_unit_for_each_role():
    assert [role_of(unit) for unit in UNITS] == sorted(PROGRAMS)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=role_of)
def test_systemd_has_nothing_to_say_against_the_unit(unit, tmp_path):
    done = analyze("verify", str(installed(unit, tmp_path)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=role_of)
def test_the_unit_exposes_little(unit):
    done = analyze("security", "--offline=yes", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < MAX_EXPOSURE


@pytest.mark.parametrize("unit", UNITS, ids=role_of)
def test_the_unit_starts_the_installed_program_and_gives_up_on_settings_that_cannot_work(unit):
    role, lines = role_of(unit), unit.read_text().splitlines()
    assert f"ExecStart=/opt/hunch/{role}/venv/bin/{PROGRAMS[role]} run" in lines
    assert "RestartPreventExitStatus=2" in lines  # see runtime.command_line.dispatch
    assert "Restart=on-failure" in lines


@pytest.mark.parametrize("role", sorted(PROGRAMS))
def test_the_settings_that_are_installed_and_all_that_they_propose_are_read_by_the_program(role, tmp_path):
    text = (ROOT / f"deploy/install/{role}.toml").read_text()
    proposed = re.sub(r"^# ?(?=\w+ = )", "", text, flags=re.MULTILINE)
    assert proposed.count("\n") > len(re.findall(r"^#", proposed, re.MULTILINE)) > 0
    credentials = re.compile(r"^credentials = .*\n", re.MULTILINE)  # names a file that is on no other machine
    assert credentials.search(proposed)
    for content in (text, credentials.sub("", proposed)):
        file = tmp_path / f"{role}.toml"
        file.write_text(content)
        settings = load(SETTINGS[role], ["--config", str(file)], prog=role, default_file=DEFAULT_FILES[role])
        assert settings.model.parent == Path("/var/lib/hunch/models")
        assert settings.broker_address().tls == (content is not text)
