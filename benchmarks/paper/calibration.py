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

# A verdict that is late for an agent's usual patience would only cost calibration a sample.
_PATIENCE_S = 30.0


def calibrated(
    stage: Stage, corpus: Corpus, output: Path, *, positions: int, temperature: float, console: Console
) -> Profile:
    """The profile at a temperature, written to `output`; goes on where it was interrupted."""
    agent = stage.agent_settings(LOOPBACK, temperature, None).model_dump(exclude={"verdict_timeout_s"})
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "calibration.jsonl"
        write_calibration_text(text, corpus.calibration)
        settings = CalibrateSettings(
            **agent, verdict_timeout_s=_PATIENCE_S, text=(text,), output=output, positions=positions
        )
        return calibrate(settings, console)
