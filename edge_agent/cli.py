"""The command line of an agent. In: argv. Out: answers on standard output, or a service."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from edge_agent.agent import Agent
from edge_agent.calibration.command import calibrate as calibrate_pair
from edge_agent.doctor import AgentDoctor
from edge_agent.service import Service
from edge_agent.settings import (
    DEFAULT_FILE,
    DEFAULT_STATE_DIR,
    CalibrateSettings,
    DoctorSettings,
    GenerateSettings,
    RunSettings,
)
from edge_agent.text import Piece
from runtime.checkup.command import check_up
from runtime.command_line import Command, dispatch, on_termination, set_up_logging
from runtime.exposition import serving
from runtime.fetch_model import fetch_model_command
from runtime.marks import MARKS, STYLES
from runtime.one_at_a_time import claim_name
from runtime.settings import load
from schemas.messages import Prompt, Usage

PROG = "edge-agent"


def main() -> int:
    """Entry point of `edge-agent`."""
    commands = {
        "generate": Command("answer one prompt", generate),
        "calibrate": Command("measure a pair of models on a text, write its profile", calibrate),
        "run": Command("wait for prompts on MQTT and answer them", run),
        "doctor": Command("check all that an agent needs: models, machine, broker, worker", doctor),
        "fetch-model": fetch_model_command(PROG),
    }
    return dispatch(PROG, "Answers prompts with a draft model, asking a worker where it doubts.", commands)


def generate(argv: list[str]) -> None:
    """`edge-agent generate PROMPT`."""
    settings = load(GenerateSettings, argv, prog=f"{PROG} generate", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    text = sys.stdin.read() if settings.prompt == "-" else settings.prompt
    with Agent(settings) as agent:
        answer, pieces = agent.answer(Prompt(id="generate", text=text, raw=settings.raw))
        show(pieces, color=settings.color)
        if settings.stats:
            print(describe(answer.usage), file=sys.stderr)


def calibrate(argv: list[str]) -> None:
    """`edge-agent calibrate --text FILE`."""
    settings = load(CalibrateSettings, argv, prog=f"{PROG} calibrate", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    try:
        calibrate_pair(settings)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise


def run(argv: list[str]) -> None:
    """`edge-agent run`."""
    settings = load(RunSettings, argv, prog=f"{PROG} run", default_file=DEFAULT_FILE)
    set_up_logging(settings.log_level)
    if settings.check:
        agent = Agent(settings)
        print(f"agent {settings.name} could draft with {agent.model.name} at {agent.connection.address}")
        return
    if settings.state_dir is None and DEFAULT_STATE_DIR.is_dir():
        settings = settings.model_copy(update={"state_dir": DEFAULT_STATE_DIR})
    with claim_name(settings.broker_address()):
        agent = Agent(settings)
        service = Service(agent)  # before it connects: who sees the agent online may ask at once
        with serving(settings, agent.measured.read), agent:
            on_termination(service.stop)
            print(f"agent {settings.name} waits on {agent.topics.prompt(settings.name)}", flush=True)
            service.run()


def doctor(argv: list[str]) -> None:
    """`edge-agent doctor`."""
    check_up(f"{PROG} doctor", argv, DoctorSettings, DEFAULT_FILE, AgentDoctor)


def show(pieces: Iterable[Piece], *, color: bool | None) -> None:
    """Print pieces as they come, each by its origin: in colour, or with marks where there is none."""
    console = Console(force_terminal=color, highlight=False, soft_wrap=True)
    in_color = console.is_terminal if color is None else color
    for piece in pieces:
        if in_color:
            console.print(Text(piece.text, STYLES[piece.origin.value]), end="")
        else:
            before, after = MARKS[piece.origin.value]
            sys.stdout.write(f"{before}{piece.text}{after}")
        sys.stdout.flush()
    print()


def describe(usage: Usage) -> str:
    """The usage of one answer in a line."""
    parts = [f"{usage.tokens} tokens in {usage.seconds:.2f} s"]
    counts = {
        "skipped": usage.skipped,
        "accepted": usage.accepted,
        "bonus": usage.bonus,
        "recovered": usage.recovered,
        "unverified": usage.unverified,
    }
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    if usage.bytes_up is not None and usage.bytes_down is not None:
        parts.append(f"{usage.bytes_up} bytes up, {usage.bytes_down} down")
    if usage.divergence is not None:
        parts.append(f"divergence {usage.divergence:.4f}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
