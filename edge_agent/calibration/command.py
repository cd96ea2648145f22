"""`edge-agent calibrate`: from a text and a worker to a profile. In: settings. Out: files, and a table."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_agent.agent import Agent
from edge_agent.calibration.collecting import Collector
from edge_agent.calibration.findings import Given, find_out
from edge_agent.calibration.k_rules import Prices
from edge_agent.calibration.report import write_report
from edge_agent.calibration.samples import SampleFile, texts_digest
from edge_agent.calibration.texts import Stretch, load_stretches
from edge_agent.learned import PREDICTION_FEATURES, TABLES
from edge_agent.settings import CalibrateSettings, Mode
from schemas.errors import ConfigurationError
from schemas.profile import Pair, Profile

# The draws must be the same after an interruption.
_DEFAULT_SEED = 0
# A fit of forty weights and five tables over less would be noise.
_LEAST_SAMPLES = 200


def calibrate(settings: CalibrateSettings, console: Console | None = None) -> Profile:
    """Collect what is missing, build the profile, write it and its report. Raises HunchError in one line."""
    console = console or Console(stderr=True)
    if settings.mode is Mode.EDGE:
        raise ConfigurationError("calibration needs a worker; leave --mode edge out")
    with Agent(settings.model_copy(update={"profile": None})) as agent:
        pair = agent.pair()
        if pair is None:
            why = agent.connection.last_error or "none online"
            # The address, not the setting: that may hold a password.
            raise ConfigurationError(f"no worker to calibrate with at {settings.broker_address()} ({why})")
        n_ctx = agent.drafter.capacity
        with console.status("reading the text"):
            stretches = load_stretches(agent.model, settings.text, n_ctx, settings.positions)
        samples = SampleFile(_samples_path(settings.output), _subject(pair, settings, stretches))
        try:
            _collect(agent, settings, stretches, samples, console)
        finally:
            samples.close()
    return _build(settings, pair, stretches, samples, console)


def _collect(
    agent: Agent,
    settings: CalibrateSettings,
    stretches: list[Stretch],
    samples: SampleFile,
    console: Console,
) -> None:
    assert agent.verifier is not None
    collector = Collector(
        agent.drafter,
        agent.verifier,
        sampling=settings.sampling,
        seed=settings.seed or _DEFAULT_SEED,
        num_tokens=agent.model.num_meant,
    )
    columns = (TextColumn("calibrating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("calibrating", total=sum(len(s.text_ids) + 1 for s in stretches))
        for number, stretch in enumerate(stretches):
            if number not in samples.by_stretch:
                samples.add(number, collector.collect(stretch, number))
            progress.advance(task, len(stretch.text_ids) + 1)


def _build(
    settings: CalibrateSettings, pair: Pair, stretches: list[Stretch], samples: SampleFile, console: Console
) -> Profile:
    held_out = [stretches[number].is_held_out for number, got in samples.by_stretch.items() for _ in got]
    num_held_out = sum(held_out)
    if (
        min(num_held_out, len(held_out) - num_held_out) < _LEAST_SAMPLES // 4
        or len(held_out) < _LEAST_SAMPLES
    ):
        raise ConfigurationError(
            f"only {len(held_out)} positions, {num_held_out} of them held out, are too few; give more text"
        )
    with console.status("fitting"):
        findings = find_out(samples.by_stretch, stretches, pair, _given(settings))
    profile = findings.profile
    settings.output.write_bytes(profile.to_bytes())
    report = settings.output.with_suffix(".html")
    write_report(report, findings)
    console.print(_table(profile))
    console.print(f"profile {profile.id} in {settings.output}, report in {report}")
    return profile


def _given(settings: CalibrateSettings) -> Given:
    return Given(
        sampling=settings.sampling,
        prices=Prices(settings.risk, settings.rejection_bytes, settings.max_left_out),
        rule=settings.rule(),
        is_set=bool(settings.model_fields_set & {"k", "k_rule"}),
    )


def _table(profile: Profile) -> Table:
    title = f"{profile.held_out:,} held-out tokens, mean beta {profile.mean_beta:.3f}"
    table = Table("estimator", "AUROC", "correlation", "skipped at risk 0.02", title=title)
    for report in sorted(profile.estimators, key=lambda report: -report.auroc):
        skipped = next(start.skipped for start in report.thresholds if start.risk == 0.02)
        table.add_row(report.name, f"{report.auroc:.3f}", f"{report.correlation:.3f}", f"{skipped:.1%}")
    return table


def _samples_path(output: Path) -> Path:
    return output.with_suffix(".samples.jsonl")


def _subject(pair: Pair, settings: CalibrateSettings, stretches: list[Stretch]) -> dict[str, object]:
    """What the samples are of, as JSON gives it back."""
    subject = {
        "format": 3,
        "features": [*PREDICTION_FEATURES, *TABLES],
        "pair": pair.model_dump(mode="json"),
        "sampling": settings.sampling.model_dump(mode="json"),
        "seed": settings.seed or _DEFAULT_SEED,
        "texts": texts_digest(stretches),
    }
    as_read: dict[str, object] = json.loads(json.dumps(subject))
    return as_read
