"""`make bench-paper`. In: settings. Out: a page, a CSV file, plots; progress on the terminal."""

from __future__ import annotations

import hashlib
import shlex
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.paper.calibration import calibrated
from benchmarks.paper.calls import Call, Corpus, read_corpus, spread
from benchmarks.paper.counts import Sums
from benchmarks.paper.measure import Bench
from benchmarks.paper.page import Setting, write_page
from benchmarks.paper.plan import TEMPERATURES, Cell, Size, chosen_cells
from benchmarks.paper.results import Results
from benchmarks.paper.settings import DEFAULT_FILE, PaperSettings
from benchmarks.paper.stage import stage
from deploy.demo.__main__ import DRAFT_MODEL, TARGET_MODEL
from runtime.command_line import Command, dispatch, set_up_logging
from runtime.content_digest import content_digest
from runtime.profile_file import read_profile
from runtime.settings import load

PROG = "python -m benchmarks paper"
_ROOT = Path(__file__).parents[2]


def main(argv: list[str]) -> int:
    """Entry point of `python -m benchmarks paper`."""
    return dispatch(PROG, "The papers' methods and ours.", {"run": Command("measure", _run)}, ["run", *argv])


def _run(argv: list[str]) -> None:
    settings = load(PaperSettings, argv, prog=PROG, default_file=DEFAULT_FILE)
    set_up_logging("warning")
    console = Console(stderr=True)
    try:
        run(settings, console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        raise


def run(settings: PaperSettings, console: Console) -> Path:
    """Measure what is missing and write the page; returns its path. Raises HunchError in one line."""
    size, corpus = Size.of(settings), read_corpus(settings.corpus)
    calls = spread(corpus.calls, size.calls)
    output = settings.output or (_ROOT / "build" / "bench-paper" if settings.quick else _ROOT / "docs")
    results = Results(output / "benchmarks" / "paper.csv", _subject(settings, size, calls))
    work = settings.work / corpus.digest()
    work.mkdir(parents=True, exist_ok=True)
    files = {t: work / f"profile-{size.positions}-{t:g}.json" for t in TEMPERATURES}
    try:
        if not settings.page_only:
            _measure(settings, corpus, files, results, console)
    finally:  # an interrupted run leaves a page of what there is
        if results.rows:
            profiles = {t: read_profile(file) for t, file in files.items()}
            write_page(output, results, Setting(size, len(calls), profiles, _command(settings)))
    console.print(f"page, figures and plots in {output}")
    return output / "benchmarks.md"


def _measure(
    settings: PaperSettings, corpus: Corpus, files: dict[float, Path], results: Results, console: Console
) -> None:
    """Calibrate, and fill the cells; `files` are the profiles' by temperature."""
    started_s, size = time.monotonic(), Size.of(settings)
    calls = spread(corpus.calls, size.calls)
    with stage() as on:
        fits = {
            t: calibrated(on, corpus, file, positions=size.positions, temperature=t, console=console).linear
            for t, file in files.items()
        }
        until_s = None if size.max_s is None else started_s + size.max_s
        bench = Bench(on, calls, files, settings.seed)
        _fill(bench, chosen_cells(settings, fits), results, console, until_s)


def _command(settings: PaperSettings) -> str:
    """What to type for the same; of the corpus only its name, as folders differ."""
    given = settings.model_fields_set - {"corpus", "output", "work", "config", "page_only"}
    flags = []
    for name in sorted(given):
        value = getattr(settings, name)
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags += [flag] if value else []
        else:
            flags += [
                f"{flag} {shlex.quote(str(one))}" for one in (value if isinstance(value, tuple) else (value,))
            ]
    arguments = f' ARGS="{" ".join(flags)}"' if flags else ""
    return f"make bench-paper CORPUS={settings.corpus.name}{arguments}"


def _subject(settings: PaperSettings, size: Size, calls: tuple[Call, ...]) -> str:
    """Of what the results are: these calls, models and settings."""
    state = hashlib.blake2b(digest_size=6)
    for call in calls:
        state.update(call.prompt.to_bytes() + call.recorded.encode())
    models = (content_digest(DRAFT_MODEL), content_digest(TARGET_MODEL))
    state.update(repr((size, settings.seed, models)).encode())
    return state.hexdigest()


def _fill(
    bench: Bench, planned: list[Cell], results: Results, console: Console, until_s: float | None
) -> None:
    """Measure the cells that have no row yet; none is begun after `until_s` (time.monotonic)."""
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
            if until_s is not None and time.monotonic() > until_s:
                console.print("the time is over: what is left is left out")
                return
            task = progress.add_task(_name(cell), total=cell.num_calls)

            def advance(task: TaskID = task) -> None:
                progress.advance(task)
                progress.advance(whole)

            sums = bench.measure(cell, advance)
            results.add(cell.key, sums)
            progress.advance(whole, cell.num_calls - sums.answers)
            progress.remove_task(task)
            console.print(f"{_name(cell)}: {_said(sums)}", soft_wrap=True)


def _name(cell: Cell) -> str:
    return f"{cell.method.name}, {cell.link.name}, temperature {cell.temperature:g}"


def _said(sums: Sums) -> str:
    return (
        f"{sums.answers} calls, {sums.accuracy:.1%} right, {sums.per_token('skipped'):.1%} skipped, "
        f"{sums.per_token('sent'):.1%} sent, {sums.tokens_per_s:.3g} tokens/s, "
        f"divergence {sums.divergence or 0:.4f}"
    )
