"""What a reader sees on a terminal. In: the fleet, the time, the room there is. Out: rich renderables. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cloud_broker_worker.monitor.figures import Figures
from cloud_broker_worker.monitor.fleet import AgentView, Fleet, WorkerView
from cloud_broker_worker.monitor.printable import printable
from cloud_broker_worker.monitor.warn import Warned, warnings

NONE = "-"
# From here on there is room for the columns that are nice to have.
_WIDE = 110
# Of a screen's lines, workers and warnings get one in so many at most; the agents get the rest.
_LINES_A_WORKER = 6
_LINES_A_WARNING = 8
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Frame:
    """The time and the room of one picture. `height` None: all rows, however many."""

    now_s: float
    clock: str
    broker: str
    width: int
    height: int | None
    notes: tuple[str, ...] = ()  # what the monitor has to say of itself
    has_color: bool = True  # else marks tell the origin of a token

    @property
    def is_wide(self) -> bool:
        """Whether there is room for all columns."""
        return self.width >= _WIDE


def overview(fleet: Fleet, frame: Frame) -> RenderableType:
    """The fleet: a line of sums, the agents, the workers, the warnings."""
    warned = warnings(fleet, frame.now_s)
    workers = sorted(fleet.workers.values(), key=lambda view: (not view.is_online, view.name))
    agents = sorted(fleet.agents.values(), key=lambda view: (not view.is_online, view.name))
    shown_workers = workers if frame.height is None else workers[: frame.height // _LINES_A_WORKER]
    below = warning_list(warned, frame)
    shown = agents
    if frame.height is not None:
        # The header, a rule and a line of names for each table, a line for what is left out of each, a rule.
        taken = 2 + 2 * 2 + 2 + 1 + len(shown_workers) + len(below)
        shown = agents[: max(1, frame.height - taken)]
    parts: list[RenderableType] = [*header(fleet, frame), Rule("agents", align="left", style="dim")]
    parts.append(agents_table(shown, warned, frame))
    parts += _left_out(len(agents) - len(shown), "agents; --agent NAME looks at one")
    parts += [Rule("workers", align="left", style="dim"), workers_table(shown_workers, frame)]
    parts += _left_out(len(workers) - len(shown_workers), "workers")
    if below:
        parts += [Rule("warnings", align="left", style="yellow"), *below]
    return Group(*parts)


def header(fleet: Fleet, frame: Frame) -> list[RenderableType]:
    """Where this is, when, and the sums over the fleet."""
    online = sum(agent.is_online for agent in fleet.agents.values())
    working = sum(worker.is_online for worker in fleet.workers.values())
    figures = fleet.figures
    first = Table.grid(expand=True)
    first.add_column(no_wrap=True, overflow="ellipsis")
    first.add_column(justify="right", no_wrap=True)
    first.add_row(Text.assemble(("Hunch", "bold cyan"), f"  {frame.broker}"), Text(frame.clock, "dim"))
    sums = (
        (str(online), _plural(online, "agent")),
        (str(working), _plural(working, "worker")),
        (_short(fleet.tokens_per_second(frame.now_s)), "tokens/s"),
        (_share(figures.skip_share), "skipped"),
        (_share(figures.accept_share), "accepted"),
        (_fixed(figures.divergence, 4), "divergence"),
    )
    return [first, _in_a_line(sums)]


def agents_table(agents: Sequence[AgentView], warned: Sequence[Warned], frame: Frame) -> RenderableType:
    """A row for each agent; those with a warning stand out."""
    if not agents:
        return Text("  none heard of yet", "dim")
    troubled = {each.who for each in warned}
    table = _table(frame)
    table.add_column("agent", no_wrap=True, max_width=26 if frame.is_wide else 13)
    table.add_column("worker", no_wrap=True, max_width=18 if frame.is_wide else 10)
    wide = ("", "answers", "tokens") if frame.is_wide else ()
    numbers = ("tok/s", *wide, "skip", "accept", "unver", "divergence", "trip ms", "B/tok ↑/↓")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for agent in agents:
        style = "yellow" if agent.name in troubled else ""
        table.add_row(*_agent_row(agent, frame), style=style if agent.is_online else "dim")
    return table


def workers_table(workers: Sequence[WorkerView], frame: Frame) -> RenderableType:
    """A row for each worker."""
    if not workers:
        return Text("  none heard of yet", "dim")
    table = _table(frame)
    table.add_column("worker", no_wrap=True, max_width=26 if frame.is_wide else 13)
    table.add_column("target model", no_wrap=True, max_width=32 if frame.is_wide else 18)
    wide = ("judged", "evicted", "refused") if frame.is_wide else ()
    for name in ("sessions", "load", "drafts/s", "reply ms", "accept", *wide, "dropped"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in workers:
        is_well = worker.is_online and not worker.is_stale(frame.now_s)
        table.add_row(*_worker_row(worker, frame), style="" if is_well else "red")
    return table


def warning_list(warned: Sequence[Warned], frame: Frame) -> list[RenderableType]:
    """One line each, the monitor's own first; those that do not fit are counted."""
    lines = [Text.assemble(("! ", "bold red"), printable(note)) for note in frame.notes]
    lines += [Text.assemble(("! ", "bold yellow"), (each.who, "bold"), f"  {each.text}") for each in warned]
    shown = lines if frame.height is None else lines[: frame.height // _LINES_A_WARNING]
    for line in shown:
        line.no_wrap, line.overflow = frame.height is not None, "ellipsis"
    return [*shown, *_left_out(len(lines) - len(shown), "warnings")]


def figures_lines(figures: Figures) -> list[RenderableType]:
    """Shares in one line, means in another."""
    shares = (
        (_share(figures.skip_share), "skipped"),
        (_share(figures.accept_share), "accepted"),
        (_share(figures.unverified_share), "unverified"),
        (_fixed(figures.divergence, 4), "divergence"),
    )
    means = (
        (_pair(figures.round_trip_median_ms, figures.round_trip_p99_ms), "ms round trip, median/p99"),
        (_pair(figures.bytes_up, figures.bytes_down), "bytes a token, up/down"),
    )
    return [_in_a_line(shares), _in_a_line(means)]


def _in_a_line(values: Sequence[tuple[str, str]]) -> Text:
    """Numbers with their units, the numbers to stand out."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for index, (number, unit) in enumerate(values):
        line.append("  " if index else "").append(f"{number} ", "bold").append(unit, "dim")
    return line


def _agent_row(agent: AgentView, frame: Frame) -> list[Text]:
    figures = agent.figures
    last = agent.recent[-1] if agent.recent else None
    dot = ("● ", "cyan" if agent.is_answering else "green") if agent.is_online else ("○ ", "dim")
    worker = agent.status.worker if agent.status is not None and agent.is_online else None
    risk = NONE if last is None or last.risk is None else f"{last.risk:g}"
    wide = [
        Text(_bars(agent.tokens.history(frame.now_s)), "cyan"),
        Text(f"{agent.num_answers:,}"),
        Text(f"{figures.tokens:,}"),
    ]
    return [
        Text.assemble(dot, agent.name),
        Text(printable(worker, max_chars=64) if worker else "none"),
        Text(_short(agent.tokens.per_second(frame.now_s))),
        *(wide if frame.is_wide else []),
        Text(_share(figures.skip_share)),
        Text(_share(figures.accept_share)),
        _unverified(figures),
        Text(f"{_fixed(figures.divergence, 4)}/{risk}"),
        Text(_pair(figures.round_trip_median_ms, figures.round_trip_p99_ms)),
        Text(_pair(figures.bytes_up, figures.bytes_down)),
    ]


def _worker_row(worker: WorkerView, frame: Frame) -> list[Text]:
    status, metrics = worker.status, worker.metrics
    stale = worker.is_stale(frame.now_s)
    dot = ("● ", "red" if stale else "green") if worker.is_online else ("○ ", "red")
    accepted = NONE if metrics is None else _share(_ratio(metrics.accepted, metrics.recovered))
    wide = [NONE] * 3 if metrics is None else [metrics.drafts, metrics.evicted, metrics.refused]
    return [
        Text.assemble(dot, worker.name),
        Text(printable(status.model, max_chars=64) if status is not None and status.model else NONE),
        Text(NONE if status is None else f"{status.sessions}/{status.max_sessions}"),
        Text(NONE if status is None else _share(status.load)),
        Text(_short(worker.drafts.per_second(frame.now_s))),
        Text(_short(worker.reply_median_ms)),
        Text(accepted),
        *([Text(_count(value)) for value in wide] if frame.is_wide else []),
        Text(NONE if metrics is None else _count(sum(metrics.dropped.values()))),
    ]


def _table(frame: Frame) -> Table:
    padding = (0, 2 if frame.is_wide else 1, 0, 0)
    return Table(box=None, padding=padding, header_style="dim", pad_edge=False, expand=False)


def _left_out(count: int, what: str) -> list[RenderableType]:
    return [Padding(Text(f"and {count} more {what}", "dim"), (0, 2))] if count > 0 else []


def _unverified(figures: Figures) -> Text:
    share = figures.unverified_share
    return Text(_share(share), "red" if share else "")


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _ratio(part: int, other: int) -> float | None:
    return part / (part + other) if part + other else None


def _count(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _share(value: float | None) -> str:
    if value is None:
        return NONE
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def _fixed(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def _pair(first: float | None, second: float | None) -> str:
    if first is None and second is None:
        return NONE
    return f"{_short(first)}/{_short(second)}"


def _short(value: float | None) -> str:
    """Two or three digits: 0, 0.94, 9.4, 944, 94k."""
    if not value:
        return NONE if value is None else "0"
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _bars(counts: Sequence[int]) -> str:
    top = max([*counts, 1])
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in counts)
