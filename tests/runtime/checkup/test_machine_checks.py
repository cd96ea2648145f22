"""What is said of a machine, with the real draft model."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.agent import context_options
from edge_agent.settings import DoctorSettings
from runtime.checkup import machine_checks
from runtime.checkup.checks import Outcome
from runtime.checkup.machine_checks import MachineChecks
from runtime.llama import Context, ContextOptions, Model
from tests.end_to_end.stage import DRAFT_MODEL
from tests.gguf_files import Plan, write_gguf


@pytest.fixture
def checks() -> Iterator[MachineChecks]:
    settings = DoctorSettings(model=DRAFT_MODEL, name="one", threads=1)
    made = MachineChecks(settings, None, lambda model: context_options(settings, model))
    yield made
    made.close()


@pytest.mark.parametrize("which", ["demo", "made up"])
def test_the_cache_is_as_large_as_llama_cpp_says(which, tmp_path, caplog):
    path = DRAFT_MODEL if which == "demo" else write_gguf(tmp_path / "m.gguf", Plan("made-up", 300, 300))
    model = Model(path)
    with caplog.at_level(logging.DEBUG, logger="runtime.llama"):
        Context(model, ContextOptions(num_cells=1024)).close()
    (told,) = re.findall(r"llama_kv_cache: size = +([\d.]+) MiB", caplog.text)
    assert 1024 * model.cell_bytes / 2**20 == pytest.approx(float(told), abs=0.01)
    model.close()


@pytest.mark.parametrize(
    ("free", "outcome"), [(10**9, Outcome.PASSED), (5 * 10**6, Outcome.WARNED), (10**6, Outcome.FAILED)]
)
def test_memory_is_enough_tight_or_too_little(checks, monkeypatch, free, outcome):
    monkeypatch.setattr(machine_checks, "available_memory_bytes", lambda: free)
    checks.check_model(chats=True)
    finding = checks.check_memory()
    assert finding.outcome is outcome
    assert finding.figures["free_bytes"] == free
    assert (finding.mend is None) == (outcome is Outcome.PASSED)


def test_memory_is_not_judged_where_a_gpu_has_a_part_of_the_model(checks, monkeypatch):
    monkeypatch.setattr(machine_checks, "available_memory_bytes", lambda: 10**6)
    monkeypatch.setattr(machine_checks, "supports_gpu", lambda: True)
    checks.check_model(chats=True)
    assert checks.check_memory().outcome is Outcome.FAILED
    checks.settings = checks.settings.model_copy(update={"gpu_layers": 4})
    assert checks.check_memory().outcome is Outcome.PASSED


def test_a_kernel_that_says_nothing_of_its_memory_leaves_the_check_out(checks, monkeypatch):
    monkeypatch.setattr(machine_checks, "available_memory_bytes", lambda: None)
    checks.check_model(chats=True)
    assert checks.check_memory().outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("kept", "matters", "outcome"),
    [
        (True, True, Outcome.PASSED),
        (False, True, Outcome.WARNED),
        (False, False, Outcome.PASSED),
        (None, False, Outcome.PASSED),
    ],
)
def test_a_clock_that_nobody_keeps_matters_to_certificates_alone(checks, monkeypatch, kept, matters, outcome):
    monkeypatch.setattr(machine_checks, "clock_is_kept", lambda: kept)
    assert checks.check_clock(matters=matters).outcome is outcome


@pytest.mark.parametrize(("matters", "outcome"), [(True, Outcome.FAILED), (False, Outcome.WARNED)])
def test_a_clock_behind_a_file_of_this_machine_is_behind(tmp_path, matters, outcome):
    file = tmp_path / "ca.pem"
    file.touch()
    settings = DoctorSettings(name="one", ca_file=file)
    for days, expected in ((0.5, None), (2, outcome)):  # certificates are made for a clock a day behind
        os.utime(file, (0, time.time() + days * 86_400))
        finding = MachineChecks(settings, None, lambda _model: ContextOptions(1)).check_clock(matters=matters)
        assert (str(file) in finding.found) == (expected is not None)
        assert expected is None or finding.outcome is expected


def test_more_threads_than_processors_are_a_warning(checks, monkeypatch):
    monkeypatch.setattr(machine_checks, "usable_processors", lambda: 2)
    assert checks.check_threads().outcome is Outcome.PASSED
    checks.settings = checks.settings.model_copy(update={"threads": 3})
    finding = checks.check_threads()
    assert (finding.outcome, finding.mend) == (Outcome.WARNED, "set threads to 2")


@pytest.mark.parametrize(("has_gpu", "outcome"), [(True, Outcome.PASSED), (False, Outcome.WARNED)])
def test_layers_for_a_gpu_need_one(checks, monkeypatch, has_gpu, outcome):
    monkeypatch.setattr(machine_checks, "supports_gpu", lambda: has_gpu)
    assert checks.check_gpu().found == "none asked for"
    checks.settings = checks.settings.model_copy(update={"gpu_layers": 4})
    assert checks.check_gpu().outcome is outcome


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('password = "secret"', True),
        ('broker = "mqtt://pi:secret@broker.example"', True),
        ('broker = "mqtt://pi@broker.example"', False),
        ("threads = 1", False),
    ],
)
def test_a_file_of_settings_is_secret_where_it_holds_a_password(tmp_path: Path, text, holds):
    file = tmp_path / "agent.toml"
    file.write_text(text)
    assert machine_checks._holds_password(file) is holds


def test_the_speed_is_measured_and_leaves_the_context_empty(checks):
    checks.check_model(chats=True)
    checks.check_context()
    assert checks.check_speed().figures["tokens_per_s"] > 0
    assert checks.check_speed().figures["tokens_per_s"] > 0  # from position 0 again: nothing was left
