"""The console commands, as processes: what they print, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_broker_worker.worker import Worker
from runtime.llama import Model
from schemas.messages import Presence, VocabularyMark, WorkerStatus
from schemas.topics import Topics
from schemas.vocabulary import Vocabulary
from tests.conftest import Connect
from tests.end_to_end.stage import DRAFT_MODEL, ROOT, Stage, command, running
from tests.mqtt_helpers import DEADLINE_S, listen, payloads

pytestmark = pytest.mark.end_to_end

TEXT = "I would like to plan a weekend by the sea."


@pytest.fixture(scope="module")
def worker(lasting_stage: Stage) -> Iterator[Worker]:
    """One worker for the answers of all these tests."""
    with lasting_stage.worker() as worker:
        yield worker


def call(argv: list[str], env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        argv, env=env, capture_output=True, text=True, check=False, timeout=DEADLINE_S, **options
    )


def generate(*arguments: str) -> list[str]:
    """A command that answers."""
    return command("edge-agent", "generate", *arguments)


def without_marks(text: str) -> str:
    """An answer without the marks of its tokens' origins. The models' own texts have none of them."""
    return text.translate(str.maketrans("", "", "+*[]")).strip()


def test_generate_answers_with_marks_where_there_are_no_colours(lasting_stage: Stage, worker: Worker) -> None:
    env = lasting_stage.agent_environment(mode="exact", temperature=0)
    done = call(generate(TEXT), env)
    assert done.returncode == 0
    assert "+" in done.stdout
    assert "\033" not in done.stdout
    assert " tokens in " in done.stderr
    assert " accepted" in done.stderr
    assert "unverified" not in done.stderr

    quiet = call(generate("-", "--no-stats"), env, input=TEXT)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, done.stdout, "")

    colored = call(generate(TEXT, "--color"), env | {"TERM": "xterm"})
    assert "\033[32m" in colored.stdout


def test_generate_repeats_itself_where_a_seed_is_set(lasting_stage: Stage, worker: Worker) -> None:
    env = lasting_stage.agent_environment(temperature=1, risk=0)
    first, second, other = (call(generate(TEXT, "--seed", seed), env).stdout for seed in ("5", "5", "6"))
    assert first == second != other


def test_generate_continues_raw_text(lasting_stage: Stage, worker: Worker) -> None:
    env = lasting_stage.agent_environment(mode="exact", temperature=0)
    raw = f"<|user|>{TEXT}<|end|><|assistant|>"
    assert call(generate(raw, "--raw"), env).stdout == call(generate(TEXT), env).stdout


def test_generate_ends_without_a_word_when_its_reader_leaves(lasting_stage: Stage, worker: Worker) -> None:
    with subprocess.Popen(
        generate(TEXT), env=lasting_stage.agent_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(DEADLINE_S) in {0, 1}  # 0: all was written before
    assert "Traceback" not in said
    assert "Error" not in said


def silent_worker_status() -> WorkerStatus:
    """What a worker with the right vocabulary says of itself."""
    model = Model(DRAFT_MODEL)
    table = model.token_table()
    model.close()
    mark = Vocabulary(table.texts, table.kinds).fingerprint()
    vocabulary = VocabularyMark.of(mark)
    return WorkerStatus(state=Presence.ONLINE, boot=1, beat_s=60, max_sessions=1, vocabulary=vocabulary)


def test_an_interrupt_ends_generate_at_once_even_while_it_waits_for_a_verdict(
    stage: Stage, connect: Connect, tmp_path: Path
) -> None:
    silent = connect("worker-1", at=stage.broker)
    drafts = listen(silent, Topics().drafts_for("worker-1"))
    status = silent_worker_status().to_bytes()
    silent.publish(Topics().worker_status("worker-1"), status, qos=1, retain=True)
    env = stage.agent_environment(mode="exact")
    with running(tmp_path / "log", generate(TEXT), env) as program:
        payloads(drafts, 1)
        started_s = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.wait() == 130
        assert time.monotonic() - started_s < 5
        assert "Traceback" not in program.output


def unused_port() -> tuple[socket.socket, int]:
    """A port where nothing listens for as long as the socket is open."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder, holder.getsockname()[1]


def test_without_a_broker_the_answer_comes_all_the_same_after_one_clear_line() -> None:
    holder, port = unused_port()
    with holder:
        env = os.environ | {"HUNCH_AGENT_MODEL": str(DRAFT_MODEL), "HUNCH_AGENT_CONNECT_TIMEOUT_S": "0.3"}
        broker = ("--broker", f"mqtt://127.0.0.1:{port}")
        done = call(generate(TEXT, "--mode", "exact", *broker), env)
    assert done.returncode == 0
    assert done.stdout.startswith("?")
    line, stats = done.stderr.splitlines()
    assert f"nothing listens at broker 127.0.0.1:{port}; check host, port and that the broker runs" in line
    assert "accepted" not in stats
    assert "unverified" in stats


def test_a_wrong_password_is_one_clear_line_that_names_both_sides(stage: Stage) -> None:
    env = stage.agent_environment(password="guessed", mode="exact", connect_timeout_s=1)
    done = call(generate(TEXT), env)
    assert done.returncode == 0
    line, stats = done.stderr.splitlines()
    assert f"broker 127.0.0.1:{stage.broker.port} refused user 'agent-1'" in line
    assert "check username and password" in line
    assert "unverified" in stats


def test_a_worker_with_a_wrong_password_says_so_and_keeps_trying(stage: Stage, tmp_path: Path) -> None:
    with stage.worker_program(tmp_path / "log", password="guessed") as worker:
        worker.wait_for_output("check username and password")
        assert worker.process.poll() is None
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert "Traceback" not in worker.output


@pytest.fixture
def cut_model(tmp_path: Path) -> Path:
    """The first part of a model file, as a broken download leaves it."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(DRAFT_MODEL.read_bytes()[:20_000])
    return path


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"model": "missing.gguf"}, "missing.gguf does not exist"),
        ({"model": "{cut}"}, "cannot load {cut}"),
        ({"model": "{text}"}, "cannot load {text}"),
        ({"threads": "many"}, "--threads"),
        ({"broker": "http://example"}, "is not a broker address"),
        ({"name": "a/b"}, "cannot be used"),
        ({"config": "missing.toml"}, "missing.toml does not exist"),
        ({"config": "{text}"}, "{text}"),
        ({"ca_file": "missing.pem"}, "missing.pem"),
    ],
    ids=str,
)
@pytest.mark.parametrize("program", ["edge-agent", "cloud-broker-worker"])
def test_unusable_settings_end_in_one_clear_line_and_exit_code_2(
    cut_model: Path, program: str, settings: dict[str, str], complaint: str
) -> None:
    prefix = {"edge-agent": "HUNCH_AGENT_", "cloud-broker-worker": "HUNCH_WORKER_"}[program]
    files = {"cut": cut_model, "text": ROOT / "LICENSE"}
    # A name of our own: another run of these tests may have claimed the machine's.
    usual = {"model": str(DRAFT_MODEL), "name": f"unusable-{os.getpid()}"}
    values = {name: value.format(**files) for name, value in (usual | settings).items()}
    env = os.environ | {prefix + name.upper(): value for name, value in values.items()}
    done = call(command(program, "run"), env)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{program}: ")
    assert complaint.format(**files) in line
