"""Does the controller hold its risk? In: a corpus of dialogues. Out: a table, a row for each scenario and risk.

The real pair through a real Mosquitto and a real worker. For each cell an agent that has learned nothing yet says at
least `--tokens` tokens; "worst 2,000" is the largest audited mean over any 2,000 tokens in a row of which the loss is
known. What is unverified, and what was skipped without an audit coming back, is in no mean and shown beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from cloud_broker_worker.private_broker import PrivateBroker
from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.worker import Worker
from deploy.demo.__main__ import DRAFT_MODEL, TARGET_MODEL
from deploy.demo.training.corpus import Dialogue, read_dialogues
from edge_agent.agent import Agent
from edge_agent.calibration.command import calibrate
from edge_agent.controller import RiskController
from edge_agent.ledger import Origin, Record
from edge_agent.policy import MAX_RUN_TOKENS
from edge_agent.settings import AgentSettings, CalibrateSettings
from edge_agent.usage import RECENT_TOKENS, known_losses
from schemas.errors import ConfigurationError
from schemas.frames import Verdict, WorkerFrame
from schemas.messages import ChatMessage, Prompt
from schemas.profile import Profile
from schemas.topics import Role

AGENT, WORKER = "bench-agent", "bench-worker"
RISKS = (0.01, 0.02, 0.05)
MARGIN = 0.005
_SHARE_LOST = 0.1
_PATIENCE_S = 60.0
_MAX_TOKENS = 96
_CODE_CHARS = 400
# Evaluating long prompts would be most of the work, and says nothing about the controller.
_MAX_HISTORY = 6


@dataclass(frozen=True)
class Scenario:
    """What a cell is like. `targets` judge one after the other, for equal shares of the tokens."""

    name: str
    prompts: Callable[[], Iterator[Prompt]]
    targets: tuple[Path, ...] = (TARGET_MODEL,)
    profile: Path | None = None
    start: float | None = None
    share_lost: float = 0.0
    guarded: bool = True


@dataclass
class Outcome:
    """What an agent said in one cell, token by token."""

    records: list[Record] = field(default_factory=list)
    bytes_up: int = 0

    @property
    def worst(self) -> float | None:
        """The largest mean over 2,000 known losses in a row; None where there are fewer."""
        sums = np.concatenate([[0.0], np.cumsum(known_losses(self.records))])
        if len(sums) <= RECENT_TOKENS:
            return None
        return float((sums[RECENT_TOKENS:] - sums[:-RECENT_TOKENS]).max() / RECENT_TOKENS)

    @property
    def skipped(self) -> npt.NDArray[np.bool_]:
        """Which tokens were kept on the board, `[num_tokens]`."""
        return np.array([record.origin is Origin.SKIPPED for record in self.records])

    @property
    def arrived_after(self) -> int | None:
        """Tokens until the next 500 are skipped at 90 % of the share of the last half; None: not yet."""
        skipped = self.skipped
        wanted = 0.9 * skipped[len(skipped) // 2 :].mean()
        sums = np.concatenate([[0], np.cumsum(skipped)])
        there = np.flatnonzero((sums[500:] - sums[:-500]) / 500 >= wanted)
        return int(there[0]) if len(there) else None


class LosingWorker(Worker):
    """A worker of whose verdicts a share never reaches the broker."""

    def __init__(self, settings: WorkerSettings, share_lost: float) -> None:
        super().__init__(settings)
        self._share_lost, self._rng = share_lost, np.random.default_rng(0)

    def _reply(self, agent: str, frame: WorkerFrame | None) -> None:
        if not isinstance(frame, Verdict) or self._rng.random() >= self._share_lost:
            super()._reply(agent, frame)


class Unguarded(RiskController):
    """The threshold alone: what the guard costs and what it is for."""

    max_run = MAX_RUN_TOKENS

    def _allows_one_more(self, unaudited_loss: float) -> bool:  # noqa: ARG002
        return True


class Bench:
    """A broker, and what stands beside it while the cells run one after the other."""

    def __init__(self, broker: PrivateBroker, folder: Path) -> None:
        self._broker, self._folder = broker, folder

    def play(self, scenario: Scenario, risk: float, num_tokens: int) -> Outcome:
        """One cell."""
        outcome, prompts = Outcome(), scenario.prompts()
        options = {
            "profile": scenario.profile,
            "start_threshold": scenario.start,
            "verdict_timeout_s": _PATIENCE_S,
            "risk": risk,
        }
        settings = AgentSettings(**(self._login(AGENT, DRAFT_MODEL) | options))
        with contextlib.ExitStack() as stack:
            worker = stack.enter_context(contextlib.ExitStack())
            worker.enter_context(self._worker(scenario.targets[0], scenario.share_lost))
            agent = stack.enter_context(Agent(settings))
            if not scenario.guarded:
                agent.policy = Unguarded(risk, agent.policy.threshold)
            for number, target in enumerate(scenario.targets, start=1):
                if number > 1:
                    worker.close()
                    worker.enter_context(self._worker(target, scenario.share_lost))
                until = num_tokens * number // len(scenario.targets)
                while len(outcome.records) < until:
                    _say(agent, next(prompts), outcome)
        return outcome

    def calibrated(self, target: Path, text: Path, num_positions: int) -> Profile:
        """A profile of the draft model and that target model."""
        output = self._folder / f"{target.stem}.json"
        options = {
            "text": (text,),
            "output": output,
            "positions": num_positions,
            "verdict_timeout_s": _PATIENCE_S,
        }
        with self._worker(target):
            settings = CalibrateSettings(**(self._login(AGENT, DRAFT_MODEL) | options))
            return calibrate(settings, Console(quiet=True))

    def _login(self, name: str, model: Path) -> dict[str, Any]:
        return {
            "name": name,
            "model": model,
            "threads": 1,
            "broker": f"mqtt://{name}@{self._broker.host}:{self._broker.port}",
            "password": self._broker.credentials[name],
        }

    @contextlib.contextmanager
    def _worker(self, target: Path, share_lost: float = 0.0) -> Iterator[None]:
        with LosingWorker(WorkerSettings(**self._login(WORKER, target)), share_lost) as worker:
            worker.connection.wait_connected(_PATIENCE_S)
            thread = threading.Thread(target=worker.run)
            thread.start()
            try:
                yield
            finally:
                worker.stop()
                thread.join()


def run(argv: list[str]) -> int:
    """`python -m benchmarks controller --corpus DIR`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks controller", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with train and heldout")
    parser.add_argument("--tokens", type=int, default=10_000, help="tokens a cell (10,000)")
    parser.add_argument("--positions", type=int, default=4_000, help="tokens that profiles are made from")
    parser.add_argument(
        "--other-target", type=Path, help="a target model that takes the pair's place unannounced"
    )
    parser.add_argument("--work", type=Path, help="folder that keeps the calibrations for the next run")
    parser.add_argument("--risk", type=float, action="append", help="instead of 0.01, 0.02 and 0.05")
    parser.add_argument("--only", help="scenarios whose name contains this")
    options = parser.parse_args(argv)
    console = Console()
    with (
        PrivateBroker({AGENT: Role.AGENT, WORKER: Role.WORKER}) as broker,
        tempfile.TemporaryDirectory(prefix="hunch-bench-") as folder,
    ):
        kept = options.work or Path(folder)
        bench = Bench(broker, kept)
        scenarios = _scenarios(bench, kept, options)
        table = Table(*_COLUMNS, title=f"at least {options.tokens:,} tokens a row")
        for risk, scenario in product(options.risk or RISKS, scenarios):
            row = _row(scenario, risk, bench.play(scenario, risk, options.tokens))
            table.add_row(*row)
            print(" | ".join(row), flush=True)  # a run takes long, and may be cut short
    console.print(table)
    return 0


def _scenarios(bench: Bench, folder: Path, options: argparse.Namespace) -> list[Scenario]:
    """All of them, the profiles that they start from made on the way."""
    training = _as_conversations(read_dialogues(options.corpus, "train"), folder / "train.jsonl")
    own = bench.calibrated(TARGET_MODEL, training, options.positions)
    # Fitted on a pair that agrees four times as well: the draft model, judged by itself.
    foreign = bench.calibrated(DRAFT_MODEL, training, options.positions)
    profiles = {"own": own, "wrong": foreign.model_copy(update={"pair": own.pair})}
    files = {name: folder / f"{name}.json" for name in profiles}
    for name, profile in profiles.items():
        files[name].write_bytes(profile.to_bytes())

    def dialogues() -> Iterator[Prompt]:
        return _dialogue_prompts(list(read_dialogues(options.corpus, "heldout")))

    usual = Scenario("held-out dialogues", dialogues, profile=files["own"])
    scenarios = [
        usual,
        replace(usual, name="another kind of text (Python)", prompts=_code_prompts),
        replace(usual, name="wrong profile", profile=files["wrong"]),
        replace(usual, name="wrong profile, start at 0.99", profile=files["wrong"], start=0.99),
        replace(usual, name="target swapped", targets=(DRAFT_MODEL, TARGET_MODEL), profile=None),
        replace(usual, name="10 % of verdicts lost", share_lost=_SHARE_LOST),
        replace(usual, name="no profile", profile=None),
        replace(usual, name="held-out dialogues, guard off", guarded=False),
    ]
    if options.other_target is not None:
        targets = (options.other_target, TARGET_MODEL)
        scenarios.append(replace(usual, name="target swapped unannounced", targets=targets))
    return [scenario for scenario in scenarios if options.only is None or options.only in scenario.name]


_COLUMNS = (
    "scenario",
    "risk",
    "worst 2,000",
    "held",
    "overall",
    "skipped",
    "unaudited",
    "unverified",
    "bytes up",
    "there after",
)


def _row(scenario: Scenario, risk: float, outcome: Outcome) -> tuple[str, ...]:
    records = outcome.records
    unaudited = [record.origin is Origin.SKIPPED and record.beta is None for record in records]
    unverified = [record.origin is Origin.UNVERIFIED for record in records]
    worst = outcome.worst
    return (
        scenario.name,
        f"{risk:g}",
        "unknown" if worst is None else f"{worst:.4f}",
        "unknown" if worst is None else "yes" if worst <= risk + MARGIN else "NO",
        f"{known_losses(records).mean():.4f}",
        f"{outcome.skipped.mean():.1%}",
        f"{np.mean(unaudited):.2%}",
        f"{np.mean(unverified):.2%}",
        f"{outcome.bytes_up / len(records):.1f}",
        "-" if outcome.arrived_after is None else str(outcome.arrived_after),
    )


def _say(agent: Agent, prompt: Prompt, outcome: Outcome) -> None:
    """One answer into the books; a prompt too long for the models is left out."""
    try:
        answer, pieces = agent.answer(prompt)
    except ConfigurationError:
        return
    for _ in pieces:
        pass
    outcome.records += answer.ledger.records
    outcome.bytes_up += answer.usage.bytes_up or 0


def _dialogue_prompts(dialogues: list[Dialogue]) -> Iterator[Prompt]:
    """The first turns of an agent, each to be said anew; dialogues in an order drawn once and for all."""
    order = np.random.default_rng(0).permutation(len(dialogues)).tolist()
    for number, dialogue in enumerate(cycle(dialogues[index] for index in order)):
        for place, (role, _) in enumerate(dialogue):
            if 0 < place <= _MAX_HISTORY and role in {"assistant", "call"}:
                turns = tuple(ChatMessage(role=who, content=text) for who, text in dialogue[:place])
                opened = () if role == "assistant" else (ChatMessage(role=role, content=""),)
                yield Prompt(id=f"d-{number}-{place}", messages=(*turns, *opened), max_tokens=_MAX_TOKENS)


def _code_prompts() -> Iterator[Prompt]:
    """Pieces of Python's own library, to be continued: no kind of text that the models have seen."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in cycle(files))
    pieces = chain.from_iterable(
        (text[at : at + _CODE_CHARS] for at in range(0, len(text), 4 * _CODE_CHARS)) for text in texts
    )
    for number, piece in enumerate(pieces):
        if piece.strip():
            yield Prompt(id=f"c-{number}", text=piece, raw=True, max_tokens=_MAX_TOKENS)


def _as_conversations(dialogues: Iterator[Dialogue], path: Path) -> Path:
    """Some dialogues as the calibration reads them."""
    with path.open("w", encoding="utf-8") as file:
        for dialogue in islice(dialogues, 0, 15_000, 200):
            turns = [{"role": role, "content": text} for role, text in dialogue]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path
