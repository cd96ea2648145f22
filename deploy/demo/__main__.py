"""All of Hunch on one machine. In: prompts. Out: answers as they come, each token by its origin, and a table.

A private Mosquitto, a worker as a process of its own, and two agents with names of their own. Everything
ends with the demo.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from cloud_broker_worker.private_broker import PrivateBroker
from deploy.demo.prompts import DemoPrompt, load_prompts
from deploy.demo.table import Tally
from edge_agent.agent import Agent
from edge_agent.cli import show
from edge_agent.ledger import Origin
from edge_agent.settings import AgentSettings
from runtime.command_line import set_up_logging
from runtime.marks import MARKS, STYLES
from schemas.errors import HunchError, LinkError
from schemas.messages import ChatMessage
from schemas.topics import Role

MODELS = Path(__file__).parent / "models"
DRAFT_MODEL = MODELS / "draft-q4_k_m.gguf"
TARGET_MODEL = MODELS / "target-q8_0.gguf"
AGENTS = ("board-1", "board-2")
WORKER = "cloud-1"
# The threshold of `1 - q[d]` that gives a mean of skip * beta of 0.02 on held-out dialogues (docs/experiments.md).
START_THRESHOLD = 0.15
NUM_CHATS = 6
_WORKER_TIMEOUT_S = 20.0


def main() -> int:
    """Entry point of `python -m deploy.demo`."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description="Hunch on one machine, live.")
    parser.add_argument("--prompt", help="answer this instead of the demo's own prompts")
    parser.add_argument("--risk", type=float, default=0.02, help="divergence allowed a token (0.02)")
    parser.add_argument("--seed", type=int, default=1, help="makes the run repeatable (1)")
    arguments = parser.parse_args()
    set_up_logging("warning")
    console = Console(highlight=False)
    prompts = _chosen(load_prompts())
    if arguments.prompt is not None:
        asked = (ChatMessage(role="user", content=arguments.prompt),)
        prompts = (DemoPrompt(title="your question", turns=asked),) * len(AGENTS)
    try:
        _run(console, prompts, arguments.risk, arguments.seed)
    except HunchError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _chosen(prompts: tuple[DemoPrompt, ...]) -> tuple[DemoPrompt, ...]:
    """A few questions that are answered in words, then all that a tool call follows on."""
    chats = [prompt for prompt in prompts if prompt.next == "assistant"]
    return (*chats[:NUM_CHATS], *(prompt for prompt in prompts if prompt.next == "call"))


def _run(console: Console, prompts: tuple[DemoPrompt, ...], risk: float, seed: int) -> None:
    users = dict.fromkeys(AGENTS, Role.AGENT) | {WORKER: Role.WORKER}
    with PrivateBroker(users) as broker, _worker(broker), contextlib.ExitStack() as stack:
        agents = [
            stack.enter_context(Agent(_settings(broker, name, risk, seed + index)))
            for index, name in enumerate(AGENTS)
        ]
        _introduce(console, broker, agents[0])
        tally = Tally(agents[0].model.num_tokens)
        for index, prompt in enumerate(prompts):
            agent = agents[index % len(agents)]
            console.print(f"\n[bold]{agent.settings.name}[/bold]  {prompt.title}", style="dim")
            console.print(prompt.turns[-1].content, markup=False, style="italic")
            answer, pieces = agent.answer(prompt.as_prompt(f"demo-{index}"))
            show(pieces, color=None)
            tally.add(answer)
        console.print()
        console.print(tally.table([agent.policy.threshold for agent in agents], risk))


@contextlib.contextmanager
def _worker(broker: PrivateBroker) -> Iterator[None]:
    """A worker process, as an operator would start it."""
    environment = os.environ | {
        "HUNCH_WORKER_NAME": WORKER,
        "HUNCH_WORKER_MODEL": str(TARGET_MODEL),
        "HUNCH_WORKER_BROKER": f"mqtt://{WORKER}@{broker.host}:{broker.port}",
        "HUNCH_WORKER_PASSWORD": broker.credentials[WORKER],
        "HUNCH_WORKER_THREADS": "1",
        "HUNCH_WORKER_METRICS_ADDRESS": "off",  # their port may serve something else on this machine
    }
    command = [sys.executable, "-m", "cloud_broker_worker.cli", "run"]
    # A process group of its own: Ctrl-C is for the demo, which ends the worker in its turn.
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, process_group=0)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _settings(broker: PrivateBroker, name: str, risk: float, seed: int) -> AgentSettings:
    return AgentSettings(
        name=name,
        model=DRAFT_MODEL,
        broker=f"mqtt://{name}@{broker.host}:{broker.port}",
        password=broker.credentials[name],
        threads=1,
        risk=risk,
        start_threshold=START_THRESHOLD,
        seed=seed,
        connect_timeout_s=_WORKER_TIMEOUT_S,
    )


def _introduce(console: Console, broker: PrivateBroker, agent: Agent) -> None:
    """Say what runs, and how the tokens of the answers are marked."""
    if not agent.connection.connected:
        raise LinkError(agent.connection.last_error or "the demo's broker did not answer")
    console.print(
        f"Mosquitto on {broker.host}:{broker.port}, worker {WORKER} with the target model, "
        f"agents {' and '.join(AGENTS)} with the draft model"
    )
    legend = []
    for origin in Origin:
        if console.is_terminal:
            legend.append(f"[{STYLES[origin.value] or 'default'}]{_MEANING[origin]}[/]")
        else:
            before, after = MARKS[origin.value]
            legend.append(f"{before}token{after}: {_MEANING[origin]}")
    console.print("  ".join(legend), markup=console.is_terminal)


_MEANING = {
    Origin.SKIPPED: "kept on the board",
    Origin.ACCEPTED: "accepted",
    Origin.RECOVERED: "recovered",
    Origin.BONUS: "bonus",
    Origin.UNVERIFIED: "unverified",
}

if __name__ == "__main__":
    sys.exit(main())
