"""`make bench-paper`. In: settings. Out: a page, a CSV file, plots; progress on the terminal."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.paper.calls import Call, Corpus, read_corpus, write_calibration_text
from benchmarks.paper.counts import Sums
from benchmarks.paper.links import LOOPBACK
from benchmarks.paper.measure import measure
from benchmarks.paper.page import Setting, write_page
from benchmarks.paper.plan import SAMPLED, TEMPERATURES, Cell, Size, cells
from benchmarks.paper.results import Results
from benchmarks.paper.settings import DEFAULT_FILE, PaperSettings
from benchmarks.paper.stage import Stage, stage
from deploy.demo.__main__ import DRAFT_MODEL, TARGET_MODEL
from edge_agent.calibration.command import calibrate
from edge_agent.settings import CalibrateSettings
from runtime.command_line import Command, dispatch, set_up_logging
from runtime.content_digest import content_digest
from runtime.settings import load
from schemas.profile import Profile

PROG = "python -m benchmarks paper"
_ROOT = Path(__file__).parents[2]
# A verdict that is late for the agent's usual patience would only lose calibration a sample.
_CALIBRATION_PATIENCE_S = 30.0


def main(argv: list[str]) -> int:
    """Entry point of `python -m benchmarks paper`."""
    return dispatch(PROG, "", {"run": Command("", _run)}, ["run", *argv])


def _run(argv: list[str]) -> None:
    settings = load(PaperSettings, argv, prog=PROG, default_file=DEFAULT_FILE)
    set_up_logging("warning")
    run(settings, Console(stderr=True))


def run(settings: PaperSettings, console: Console) -> Path:
    """Measure what is missing and write the page; returns its path."""
    size = Size.of(settings)
    corpus = read_corpus(settings.corpus)
    calls = corpus.chosen(size.calls)
    output = settings.output or (_ROOT / "build" / "bench-paper" if settings.quick else _ROOT / "docs")
    results = Results(output / "benchmarks" / "paper.csv", _subject(settings, size, calls))
    with stage() as on:
        LOOPBACK.apply(on.proxy)
        made = {t: _calibrated(on, corpus, size, t, console) for t in TEMPERATURES}
        profiles, files = ({t: pair[index] for t, pair in made.items()} for index in (0, 1))
        planned = cells(size, {t: profile.linear for t, profile in profiles.items()}, quick=settings.quick)
        setting = Setting(
            size, len(calls), profiles[SAMPLED].pair.draft_vocabulary.num_tokens, profiles, _command(settings)
        )
        try:
            _fill(on, planned, calls, files, results, settings.seed, console)
        finally:  # an interrupted run leaves a page of what there is
            page = write_page(output, results, setting)
    console.print(f"page in {page}, figures in {output / 'benchmarks'}")
    return page


def _command(settings: PaperSettings) -> str:
    """What to type for the same; of the corpus only its name, as folders differ."""
    given = settings.model_fields_set - {"corpus", "output", "config"}
    flags = [
        f"--{name.replace('_', '-')}" + ("" if name == "quick" else f" {getattr(settings, name)}")
        for name in sorted(given)
    ]
    arguments = f' ARGS="{" ".join(flags)}"' if flags else ""
    return f"make bench-paper CORPUS={settings.corpus.name}{arguments}"


def _subject(settings: PaperSettings, size: Size, calls: tuple[Call, ...]) -> str:
    """Of what the results are: these calls, models and settings."""
    state = hashlib.blake2b(digest_size=6)
    for call in calls:
        state.update(call.prompt.to_bytes() + call.recorded.encode())
    models = (content_digest(DRAFT_MODEL), content_digest(TARGET_MODEL))
    state.update(repr((size, settings.seed, settings.quick, models)).encode())
    return state.hexdigest()


def _calibrated(
    on: Stage, corpus: Corpus, size: Size, temperature: float, console: Console
) -> tuple[Profile, Path]:
    """The pair's profile at a temperature, by `edge-agent calibrate`; it goes on where it was interrupted."""
    folder = _ROOT / "build" / "bench-profiles"
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"profile-{temperature:g}-{size.positions}.json"
    with tempfile.TemporaryDirectory() as place:
        text = Path(place) / "calibration.jsonl"
        write_calibration_text(text, corpus.calibration)
        agent = on.agent_settings(temperature, None)
        settings = CalibrateSettings(
            **agent.model_dump(exclude={"verdict_timeout_s"}),
            verdict_timeout_s=_CALIBRATION_PATIENCE_S,
            text=(text,),
            output=output,
            positions=size.positions,
        )
        return calibrate(settings, console), output


def _fill(
    on: Stage,
    planned: list[Cell],
    calls: tuple[Call, ...],
    profiles: dict[float, Path],
    results: Results,
    seed: int,
    console: Console,
) -> None:
    """Measure the cells that have no row yet."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("calls"),
        TimeElapsedColumn(),
    )
    missing = [cell for cell in planned if cell.key not in results.rows]
    with Progress(*columns, console=console) as progress:
        whole = progress.add_task("all", total=sum(cell.num_calls for cell in missing))
        for cell in missing:
            name = f"{cell.method.name}, {cell.link.name}, temperature {cell.temperature:g}"
            task = progress.add_task(name, total=cell.num_calls)

            def advance(task: TaskID = task) -> None:
                progress.advance(task)
                progress.advance(whole)

            chosen = calls[: cell.num_calls] if cell.max_s is None else _spread(calls, cell.num_calls)
            sums = measure(on, cell, chosen, profiles[cell.temperature], seed, advance)
            results.add(cell.key, sums)
            progress.advance(whole, cell.num_calls - sums.answers)
            progress.remove_task(task)
            console.print(_line(name, sums))


def _spread(calls: tuple[Call, ...], count: int) -> tuple[Call, ...]:
    """Some of the calls, at even distances."""
    return tuple(calls[index * len(calls) // count] for index in range(min(count, len(calls))))


def _line(name: str, sums: Sums) -> str:
    return (
        f"{name}: {sums.answers} calls, {sums.accuracy:.1%} right, {sums.per_token('skipped'):.1%} skipped, "
        f"{sums.per_token('sent'):.1%} sent, {sums.tokens_per_s:.0f} tokens/s, divergence {sums.divergence or 0:.4f}"
    )
