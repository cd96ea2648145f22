"""What the doctors find with real models, a real worker and a real Mosquitto: all well, and one fault at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.tcp_proxy import TcpProxy
from cloud_broker_worker.private_broker import PrivateBroker
from edge_agent import settings as agent_settings
from edge_agent.doctor import AgentDoctor
from schemas.topics import Role, Topics
from tests.end_to_end.examination import (
    MACHINE,
    PASSED,
    SKIPPED,
    WARNED,
    at_fault,
    examine_agent,
    examine_worker,
    mend,
)
from tests.end_to_end.stage import DRAFT_MODEL, PATIENCE_S, ROOT, Stage, command
from tests.end_to_end.test_commands import silent_worker_status
from tests.gguf_files import Plan, write_gguf
from tests.mqtt_helpers import DEADLINE_S, listen, wait_for
from tests.profiles import made_up_profile

pytestmark = pytest.mark.end_to_end

TOPICS = Topics()


@pytest.fixture(scope="module")
def staffed() -> Iterator[Stage]:
    """A broker with a worker, for tests that break nothing."""
    users = {"agent-1": Role.AGENT, "agent-2": Role.AGENT, "worker-1": Role.WORKER, "worker-2": Role.WORKER}
    with PrivateBroker(users) as broker:
        stage = Stage(broker)
        with stage.worker(beat_s=60):
            yield stage


def test_a_healthy_agent_passes_every_check(staffed):
    found = examine_agent(**staffed.login("agent-1"))
    assert {name: f for name, f in found.items() if name not in MACHINE and f.outcome is not PASSED} == {}
    assert found["worker"].found == "worker-1 (hunch-demo-target, 0 of 16 sessions)"
    trip = found["round_trip"].figures
    assert trip["verdicts"] >= 5
    assert 0 < trip["median_ms"] <= trip["slowest_ms"]
    assert found["speed"].figures["tokens_per_s"] > 0
    assert "none for this pair" in found["profile"].found


def test_a_healthy_worker_passes_every_check(staffed):
    found = examine_worker(**staffed.login("worker-2"))
    assert {name: f for name, f in found.items() if name not in MACHINE and f.outcome is not PASSED} == {}
    assert 0 < found["echo"].figures["median_ms"] < 1000


def test_the_doctors_leave_nothing_behind(stage, connect):
    watcher = connect("operator-1", at=stage.broker)
    with stage.worker() as worker:
        examine_agent(**stage.login("agent-1"))
        examine_worker(**stage.login("worker-2"))
        wait_for(lambda: not len(worker.sessions))
        inbox = listen(watcher, TOPICS.everything())
        # A broker sends what it has kept before what is said later.
        watched = TOPICS.agent_metrics("agent-2")
        connect("agent-2", at=stage.broker).publish(watched, b"the end", qos=1)
        kept = set()
        while (message := inbox.get(DEADLINE_S)) is not None and message.topic != watched:
            kept.add(message.topic)
        assert kept == {TOPICS.worker_status("worker-1")}


@pytest.mark.parametrize("fault", ["unset", "missing", "cut", "a text"])
def test_without_a_usable_model_the_way_to_the_broker_is_checked_all_the_same(staffed, tmp_path, fault):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(DRAFT_MODEL.read_bytes()[:20_000])
    models = {"unset": Path(), "missing": tmp_path / "no.gguf", "cut": cut, "a text": ROOT / "LICENSE"}
    found = examine_agent(**staffed.login("agent-1"), model=models[fault])
    assert at_fault(found) == {"model"}
    assert "GGUF file" in mend(found["model"])
    assert "\n" not in found["model"].found
    assert [found[name].outcome for name in ("login", "access")] == [PASSED, PASSED]
    skipped = {name for name, finding in found.items() if finding.outcome is SKIPPED}
    assert {"memory", "context", "speed", "packet_size", "worker", "round_trip"} <= skipped


def test_a_model_without_a_chat_template_can_only_continue_text(tmp_path, staffed, monkeypatch):
    monkeypatch.setattr("tests.gguf_files.CHAT_TEMPLATE", "")
    plain = write_gguf(tmp_path / "plain.gguf", Plan("plain", 300, 300))
    found = examine_agent(**staffed.login("agent-1"), model=plain)
    assert found["model"].outcome is WARNED
    assert "no chat template" in found["model"].found


def test_a_context_beyond_the_models_own_is_a_warning(staffed):
    found = examine_agent(**staffed.login("agent-1"), n_ctx=2048)
    assert found["context"].outcome is WARNED
    assert "was made for 1280" in found["context"].found


def test_more_memory_than_there_is_fails_before_it_is_taken(staffed):
    found = examine_worker(**staffed.login("worker-2"), max_sessions=256, n_ctx=10_000_000)
    assert at_fault(found) == {"memory"}
    assert found["memory"].figures["needed_bytes"] > found["memory"].figures["free_bytes"]
    assert "lower n_ctx (now 10000000) or max_sessions" in mend(found["memory"])
    assert found["context"].outcome is SKIPPED


def test_threads_and_gpu_layers_that_are_not_there_are_warnings(staffed):
    found = examine_agent(**staffed.login("agent-1"), threads=500, gpu_layers=99, mode="edge")
    assert found["threads"].outcome is WARNED
    assert "set threads to" in mend(found["threads"])
    assert found["gpu"].outcome in {PASSED, WARNED}  # as this llama.cpp was built


def test_without_a_worker_that_is_what_fails(stage):
    found = examine_agent(**stage.login("agent-1"))
    assert at_fault(found) == {"worker"}
    assert found["worker"].found == "no worker is online"
    assert found["profile"].outcome is SKIPPED


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"boot": 2**50}, "worker-1 started in the future: this clock is behind, or theirs is ahead"),
        ({"sessions": 3, "max_sessions": 3}, "all full: who opens a session there ends another one"),
    ],
    ids=["ahead", "full"],
)
def test_what_a_worker_says_of_itself_can_be_a_warning(stage, connect, said, line):
    status = silent_worker_status().model_copy(update=said)
    silent = connect("worker-1", at=stage.broker)
    silent.publish(TOPICS.worker_status("worker-1"), status.to_bytes(), qos=1, retain=True)
    found = examine_agent(**stage.login("agent-1"), verdict_timeout_s=0.2)
    assert found["worker"].outcome is WARNED
    assert line in found["worker"].found
    assert at_fault(found) == {"round_trip"}  # it is but a status


def test_a_profile_is_found_where_it_is_and_one_of_another_pair_is_named(staffed, connect, tmp_path):
    with staffed.agent("agent-2") as agent:
        pair = agent.pair()
    assert pair is not None
    login, profile = staffed.login("agent-1"), made_up_profile(pair)
    file, other, broken = (tmp_path / name for name in ("own.json", "other.json", "broken.json"))
    file.write_bytes(profile.to_bytes())
    other.write_bytes(made_up_profile().to_bytes())
    broken.write_text("{")

    assert f"{profile.id}, from {file}" in examine_agent(**login, profile=file)["profile"].found
    for bad, line in ((other, "is for the draft model draft"), (broken, "is no profile of this version")):
        found = examine_agent(**login, profile=bad)
        assert at_fault(found) == {"profile"}
        assert line in found["profile"].found

    elsewhere = made_up_profile(pair.model_copy(update={"target": "another"}))
    file.write_bytes(elsewhere.to_bytes())
    found = examine_agent(**login, profile=file)
    assert found["profile"].outcome is WARNED
    assert "is for the target model another" in found["profile"].found

    topic = TOPICS.profile(profile.id)
    keeper = connect("worker-2", at=staffed.broker)
    keeper.publish(topic, profile.to_bytes(), qos=1, retain=True)
    wait_for(lambda: "from the broker" in examine_agent(**login)["profile"].found)
    keeper.publish(topic, b"", qos=1, retain=True)


def test_a_worker_publishes_only_a_profile_of_its_own_target_model(staffed, tmp_path):
    other = tmp_path / "other.json"
    other.write_bytes(made_up_profile().to_bytes())
    found = examine_worker(**staffed.login("worker-2"), profile=other)
    assert at_fault(found) == {"profile"}
    assert "is for the target model target" in found["profile"].found


def test_in_edge_mode_nobody_is_missed(stage):
    found = examine_agent(**stage.login("agent-1"), mode="edge")
    assert at_fault(found) == set()
    assert found["worker"].outcome is SKIPPED


def test_a_worker_of_a_foreign_vocabulary_is_named_with_both_fingerprints(stage, tmp_path):
    with stage.worker(model=write_gguf(tmp_path / "foreign.gguf", Plan("foreign", 600, 600))):
        found = examine_agent(**stage.login("agent-1"))
    assert at_fault(found) == {"fingerprint"}
    line = found["fingerprint"].found
    assert "over 4096 tokens" in line
    assert "worker-1 (foreign, " in line
    assert "over 600 tokens" in line
    assert found["fingerprint"].mend == "use models of one family"
    assert found["round_trip"].outcome is SKIPPED


def test_a_worker_that_hangs_is_reached_and_gives_no_verdict(stage, tmp_path, connect):
    statuses = listen(connect("operator-1", at=stage.broker), TOPICS.worker_status("worker-1"))
    with stage.worker_program(tmp_path / "log") as worker:
        assert statuses.get(DEADLINE_S) is not None
        worker.signal(signal.SIGSTOP)
        found = examine_agent(**stage.login("agent-1"), verdict_timeout_s=0.5)
    assert at_fault(found) == {"round_trip"}
    assert "worker worker-1 gave no verdict within 0.5 s" in found["round_trip"].found


def test_a_slow_network_is_a_warning_before_tokens_go_unverified(stage):
    with stage.worker(), TcpProxy(stage.broker.port) as proxy:
        proxy.set_network(delay_s=0.4)
        found = examine_agent(**stage.behind(proxy.port).login("agent-1"), verdict_timeout_s=1.5)
    assert found["round_trip"].outcome is WARNED
    assert found["round_trip"].figures["median_ms"] > 800
    assert "raise verdict_timeout_s" in mend(found["round_trip"])


def test_an_agent_that_runs_keeps_its_connection(stage, tmp_path, connect):
    with stage.agent_program(tmp_path / "log", mode="edge"):
        watcher = connect("operator-1", at=stage.broker)
        statuses = listen(watcher, TOPICS.agent_status("agent-1"))
        wait_for(lambda: statuses.get(1))  # it is online
        found = examine_agent(**stage.login("agent-1"))
        assert found["alone"].outcome is WARNED
        left_out = {name for name, finding in found.items() if finding.outcome is SKIPPED}
        assert {"memory", "context", "speed", "login", "access", "worker", "round_trip"} <= left_out
        assert found["port"].outcome is PASSED
        assert at_fault(found) == set()
        # Whatever the broker would say of a lost connection, it says before it says this.
        connect("client-1", at=stage.broker).publish(TOPICS.prompt("agent-1"), b"{}", qos=1)
        assert stage.broker.log.count(" as agent-1 ") == 1
        assert statuses.get(0.0) is None


def test_a_worker_that_runs_keeps_its_connection(stage, tmp_path):
    with stage.worker_program(tmp_path / "log"):
        wait_for(lambda: " as worker-1 " in stage.broker.log)
        found = examine_worker(**stage.login("worker-1"))
        assert found["alone"].outcome is WARNED
        assert {found[name].outcome for name in ("memory", "context", "login", "echo")} == {SKIPPED}
        assert at_fault(found) == set()
        assert stage.broker.log.count(" as worker-1 ") == 1


@pytest.mark.parametrize("program", ["edge-agent", "cloud-broker-worker"])
def test_a_second_service_of_a_name_is_told_so_and_the_first_goes_on(stage, tmp_path, program):
    name = {"edge-agent": "agent-1", "cloud-broker-worker": "worker-1"}[program]
    runs = {"edge-agent": stage.agent_program, "cloud-broker-worker": stage.worker_program}[program]
    env = {"edge-agent": stage.agent_environment, "cloud-broker-worker": stage.worker_environment}[program]
    options = {"mode": "edge"} if program == "edge-agent" else {}
    with runs(tmp_path / "log", **options) as first:
        second = subprocess.run(
            command(program, "run"),
            env=env(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert second.returncode == 2
        assert second.stderr.startswith(f"{program}: {name} already runs on this machine")
        assert len(second.stderr.splitlines()) == 1
        assert first.process.poll() is None
        wait_for(lambda: f" as {name} " in stage.broker.log)
        assert stage.broker.log.count(f" as {name} ") == 1


def test_secrets_that_everybody_can_read_are_a_warning_with_the_command(stage):
    # Not pytest's folder, which is closed to others whatever the file is.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = folder / "agent.toml"
        config.write_text('password = "secret"\n')
        for mode, outcome in ((0o644, WARNED), (0o640, PASSED)):
            config.chmod(mode)
            settings = agent_settings.DoctorSettings(**stage.login("agent-1"))
            with AgentDoctor(settings, config) as doctor:
                finding = doctor.machine.check_settings()
            assert finding.outcome is outcome
            assert (finding.mend == f"chmod o-rwx {config}") == (outcome is WARNED)


def call(program: str, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(program, "doctor", *arguments),
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_the_command_prints_lines_or_a_document_and_its_exit_code_says_whether_anything_failed(staffed):
    env = staffed.agent_environment()
    lines = call("edge-agent", env)
    assert (lines.returncode, lines.stderr) == (0, "")
    assert "✔ passed  round trip   a verdict takes" in lines.stdout

    document = json.loads(call("edge-agent", env, "--json").stdout)
    assert document["name"] == "agent-1"
    assert document["outcome"] in {"passed", "warned"}

    broken = call("edge-agent", env | {"HUNCH_AGENT_MODEL": "no.gguf"}, "--json")
    assert broken.returncode == 1
    assert json.loads(broken.stdout)["outcome"] == "failed"
    assert broken.stderr == "edge-agent: 1 of 20 checks failed: model\n"


def test_settings_that_cannot_be_read_are_exit_code_2_and_json_where_json_is_asked_for():
    for program, variable in (("edge-agent", "HUNCH_AGENT"), ("cloud-broker-worker", "HUNCH_WORKER")):
        done = call(program, os.environ | {f"{variable}_THREADS": "many"}, "--json")
        assert done.returncode == 2
        assert done.stderr.startswith(f"{program}: --threads ({variable}_THREADS): ")
        (check,) = json.loads(done.stdout)["checks"]
        assert (check["name"], check["outcome"]) == ("settings", "failed")


def test_a_workers_doctor_names_the_agents_that_are_online(stage):
    with stage.agent("agent-2", mode="edge") as agent:
        assert agent.connection.wait_connected(DEADLINE_S)
        wait_for(lambda: examine_worker(**stage.login("worker-2"))["agents"].found == "1 online: agent-2")


def test_the_page_explains_every_figure_that_comes_out(staffed):
    page = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    table = page[page.index("| check | figures |") :]
    found = examine_agent(**staffed.login("agent-1")) | examine_worker(**staffed.login("worker-2"))
    for name, finding in found.items():
        (row,) = re.findall(rf"^\| .*`{name}`.* \| (.*) \|$", table, re.MULTILINE) or [""]
        assert finding.figures.keys() <= set(re.findall(r"`(\w+)`", row)), name
