"""The pair's profiles for the benchmark, by `edge-agent calibrate` itself. In: dialogues. Out: a profile."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.paper.calls import Corpus, write_calibration_text
from benchmarks.paper.links import LOOPBACK
from benchmarks.paper.stage import Stage
from edge_agent.calibration.command import calibrate
from edge_agent.settings import CalibrateSettings
from schemas.profile import Profile


def calibrated(
    stage: Stage, corpus: Corpus, output: Path, *, positions: int, temperature: float, console: Console
) -> Profile:
    """The profile at a temperature, written to `output`; goes on where it was interrupted."""
    agent = stage.agent_settings(LOOPBACK, temperature, None).model_dump()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "calibration.jsonl"
        write_calibration_text(text, corpus.calibration)
        settings = CalibrateSettings(**agent, text=(text,), output=output, positions=positions)
        return calibrate(settings, console)
