"""The demo as a newcomer runs it, and the pair of models that it ships."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.demo.__main__ import DRAFT_MODEL, MODELS, TARGET_MODEL
from deploy.demo.prompts import load_prompts
from deploy.demo.training.sgd import convert_dialogue
from runtime.llama import Model
from schemas.messages import ChatMessage
from schemas.vocabulary import Vocabulary

pytestmark = pytest.mark.end_to_end

ROWS = (
    "tokens",
    "kept on the board (skipped)",
    "sent in doubt",
    "bonus tokens from the target",
    "unverified",
    "bytes a token, MQTT included",
    "full-vocabulary upload",
    "verdict round trip",
    "divergence, audited",
    "threshold now",
)


@contextmanager
def demo(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, its output piped, in a process group of its own."""
    command = [sys.executable, "-m", "deploy.demo", *flags]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        process_group=0,
    ) as process:
        yield process


def test_the_demo_answers_its_prompts_and_ends_with_what_they_came_to() -> None:
    with demo() as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    for name in ("board-1", "board-2", "cloud-1"):
        assert name in output
    for row in ROWS:
        assert f"│ {row} " in output
    assert "unverified                   │ 0.0%" in output
    assert "WARNING" not in output


def test_a_question_of_ones_own_is_answered_whatever_it_holds() -> None:
    question = """why "is" $5 'cheap'?"""
    with demo(f"--prompt={question}") as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert output.count(question) == 2  # by each board


def test_an_interrupt_leaves_nothing_running() -> None:
    with demo() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("board-1"):
                break
        children = _descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(children) >= 2  # the broker and the worker
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def _descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return children + [each for child in children for each in _descendants(child)]


def test_there_are_prompts_enough_and_some_ask_for_a_tool_call() -> None:
    prompts = load_prompts()
    assert len(prompts) >= 60
    assert len({prompt.title for prompt in prompts}) == len(prompts)
    assert sum(prompt.next == "call" for prompt in prompts) >= 8


def test_the_pair_is_small_of_one_vocabulary_and_opens_turns_alike() -> None:
    assert sum(file.stat().st_size for file in MODELS.glob("*.gguf")) < 25_000_000
    models = [Model(path) for path in (DRAFT_MODEL, TARGET_MODEL)]
    tables = [model.token_table() for model in models]
    draft, target = (Vocabulary(table.texts, table.kinds).fingerprint() for table in tables)
    assert draft == target
    turns = [ChatMessage(role="user", content="Hello!").model_dump()]
    assert models[0].chat_prompt_ids(turns) == models[1].chat_prompt_ids(turns)
    for model in models:
        model.close()


def test_a_dialogue_of_the_data_set_becomes_turns_with_call_and_result() -> None:
    dialogue = {
        "turns": [
            {"speaker": "USER", "utterance": "A table, please.", "frames": []},
            {
                "speaker": "SYSTEM",
                "utterance": "Done.",
                "frames": [
                    {
                        "service_call": {
                            "method": "Reserve",
                            "parameters": {"time": "18:00", "city": "Napa"},
                        },
                        "service_results": [{"b": "2", "a": "1"}, {"a": "not the first"}],
                    }
                ],
            },
        ]
    }
    assert convert_dialogue(dialogue) == [
        ("user", "A table, please."),
        ("call", '{"call": "Reserve", "city": "Napa", "time": "18:00"}'),
        ("result", '{"a": "1", "b": "2"}'),
        ("assistant", "Done."),
    ]
