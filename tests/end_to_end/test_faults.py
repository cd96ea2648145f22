"""What the reader of an answer sees when something breaks in the middle of it: an answer."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tcp_proxy import TcpProxy
from edge_agent.ledger import Origin
from edge_agent.settings import Mode
from schemas.messages import AgentStatus, Presence, Prompt, parse_message
from schemas.topics import Topics
from tests.conftest import Connect
from tests.end_to_end.conftest import MAX_TOKENS
from tests.end_to_end.stage import (
    VERIFIED,
    Reading,
    Stage,
    num_missed,
    read,
    wait_for_news,
    wait_for_verdict,
    worker_in_use,
)
from tests.end_to_end.target_alone import TargetAlone
from tests.mqtt_helpers import DEADLINE_S, listen, wait_for

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("endless_answers")]

LONG = Prompt(id="long", text="I would like to plan a weekend by the sea.", max_tokens=400)
SHORT = Prompt(id="short", text="I would like to plan a weekend by the sea.", max_tokens=24)
EXACT: dict[str, Any] = {"mode": Mode.EXACT, "temperature": 0}
# Longer than any verdict takes, even on a busy machine, and short enough to wait for.
TIMEOUT_S = 1.5


def test_an_answer_outlives_its_broker_and_is_verified_again_when_that_is_back(stage: Stage) -> None:
    with stage.worker() as worker, stage.agent(**EXACT) as agent:
        reading = Reading(agent, LONG)
        reading.until_new(*VERIFIED)
        stage.broker.kill()
        reading.until_new(Origin.UNVERIFIED)
        reading.until_new(Origin.UNVERIFIED)
        stage.broker.restart()
        assert worker.connection.wait_connected(DEADLINE_S)
        assert agent.connection.wait_connected(DEADLINE_S)
        reading.until_new(*VERIFIED)
        reading.to_end()
        assert reading.origins[-1] in VERIFIED


def test_an_answer_outlives_its_connection(stage: Stage) -> None:
    with (
        TcpProxy(stage.broker.port) as proxy,
        stage.worker(),
        stage.behind(proxy.port).agent(**EXACT) as agent,
    ):
        reading = Reading(agent, LONG)
        reading.until_new(*VERIFIED)
        proxy.refuse()
        proxy.cut()
        reading.until_new(Origin.UNVERIFIED)
        proxy.accept()
        assert agent.connection.wait_connected(DEADLINE_S)
        reading.until_new(*VERIFIED)
        reading.to_end()


def test_a_network_that_delivers_nothing_and_says_nothing_costs_one_verdict_timeout(stage: Stage) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(TcpProxy(stage.broker.port))
        stack.enter_context(stage.worker())
        agent = stack.enter_context(stage.behind(proxy.port).agent(verdict_timeout_s=TIMEOUT_S, **EXACT))
        reading = Reading(agent, LONG)
        reading.until_new(*VERIFIED)
        proxy.stall()
        started_s = time.monotonic()
        for _ in range(20):
            reading.until_new(Origin.UNVERIFIED)
        assert TIMEOUT_S <= time.monotonic() - started_s < 2 * TIMEOUT_S
        assert num_missed(agent) == 1
        proxy.resume()
        wait_for_verdict(agent)
        reading.until_new(*VERIFIED)
        reading.to_end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_when_a_worker_dies_or_hangs_another_one_takes_over_within_a_verdict_timeout(
    stage: Stage, tmp_path: Path, number: signal.Signals
) -> None:
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(stage.worker_program(tmp_path / name, name))
            for name in ("worker-1", "worker-2")
        }
        agent = stack.enter_context(stage.agent(verdict_timeout_s=TIMEOUT_S, **EXACT))
        reading = Reading(agent, LONG)
        reading.until_new(*VERIFIED)
        lost = worker_in_use(agent)
        assert lost is not None
        workers[lost].signal(number)
        started_s = time.monotonic()
        reading.until(lambda: worker_in_use(agent) not in {None, lost})
        reading.until_new(*VERIFIED)
        assert time.monotonic() - started_s < 2 * TIMEOUT_S
        assert num_missed(agent) <= 1
        assert reading.origins.count(Origin.UNVERIFIED) >= num_missed(agent)
        reading.to_end()
        assert reading.origins[-1] in VERIFIED


def test_a_worker_that_starts_anew_under_its_old_name_is_told_the_answer_again(
    stage: Stage, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        worker = stack.enter_context(stage.worker_program(tmp_path / "first"))
        agent = stack.enter_context(stage.agent(verdict_timeout_s=TIMEOUT_S, **EXACT))
        reading = Reading(agent, LONG)
        reading.until_new(*VERIFIED)
        worker.kill()
        wait_for_news(agent)  # the last will
        reading.until_new(Origin.UNVERIFIED)
        stack.enter_context(stage.worker_program(tmp_path / "second"))
        wait_for_news(agent)
        reading.until_new(*VERIFIED)
        reading.to_end()


def test_without_a_worker_all_is_unverified_and_that_is_said_once(
    stage: Stage, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    statuses = listen(connect("operator-1", at=stage.broker), Topics().agent_status("agent-1"), qos=1)
    with stage.agent(connect_timeout_s=0.2, **EXACT) as agent, caplog.at_level(logging.WARNING):
        assert set(read(agent, SHORT).origins) == {Origin.UNVERIFIED}
        assert set(read(agent, SHORT).origins) == {Origin.UNVERIFIED}
        assert caplog.messages == ["no worker is online; going on unverified"]
        assert _next_status(statuses).note is None  # that of its start
        assert _next_status(statuses).note == "no worker is online"


def test_a_slow_worker_leaves_tokens_unverified_and_its_late_verdicts_count_for_the_audit_alone(
    stage: Stage,
) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(TcpProxy(stage.broker.port))
        stack.enter_context(stage.behind(proxy.port).worker())
        agent = stack.enter_context(stage.agent(verdict_timeout_s=0.3, threshold=0.3))
        proxy.down.delay_s = 0.9
        reading = Reading(agent, LONG)
        reading.until_new(Origin.UNVERIFIED)
        wait_for_verdict(agent)
        records = reading.answer.ledger.records
        reading.until(lambda: any(r.origin is Origin.UNVERIFIED and r.beta is not None for r in records))
        reading.to_end()
        usage = reading.answer.usage
        assert usage.unverified > 0
        assert usage.accepted == usage.recovered == usage.bonus == 0
        assert usage.skipped + usage.unverified == usage.tokens


def test_a_worker_that_was_ready_too_late_for_one_answer_is_asked_again_in_the_next(stage: Stage) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(TcpProxy(stage.broker.port))
        worker = stack.enter_context(stage.behind(proxy.port).worker())
        agent = stack.enter_context(stage.agent(verdict_timeout_s=TIMEOUT_S, **EXACT))
        proxy.down.delay_s = 1.5 * TIMEOUT_S
        assert set(read(agent, SHORT).origins) == {Origin.UNVERIFIED}
        wait_for_verdict(agent)
        proxy.down.delay_s = 0.0
        # The question was sent twice: with the second one all that the proxy has held back is through.
        wait_for(lambda: worker.metrics().dropped.get("repeated"))
        assert set(read(agent, SHORT).origins) <= set(VERIFIED)


def test_an_evicted_session_is_opened_anew_and_its_text_stays_the_targets_own(
    stage: Stage, target_alone: TargetAlone
) -> None:
    prompts = {
        "agent-1": Prompt(id="a", text="Is there a bakery in Sonoma?", max_tokens=MAX_TOKENS),
        "agent-2": Prompt(id="b", text="I want to hear some soul music.", max_tokens=MAX_TOKENS),
    }
    with ExitStack() as stack:
        worker = stack.enter_context(stage.worker(max_sessions=1))
        readings = []
        for name, prompt in prompts.items():
            agent = stack.enter_context(stage.agent(name, **EXACT))
            readings.append(Reading(agent, prompt))
        going_on = list(readings)
        while going_on:
            going_on = [reading for reading in going_on if reading.read()]
        for reading in readings:
            assert set(reading.origins) <= set(VERIFIED)
            own = target_alone.greedy(target_alone.prompt_ids(reading.prompt), MAX_TOKENS)
            noise = target_alone.noise_reopened([own])
            compared = target_alone.compare(own, reading.to_end())
            assert max(compared.gaps_where_different, default=0.0) <= noise.most
        metrics = worker.metrics()
        assert metrics.evicted > 5
        assert metrics.resynced > 5


def _next_status(inbox: Any) -> AgentStatus:
    message = inbox.get(DEADLINE_S)
    assert message is not None
    return parse_message(AgentStatus, message.payload)


def test_when_an_agent_is_killed_its_status_says_so_and_its_worker_frees_its_sessions(
    stage: Stage, connect: Connect, tmp_path: Path
) -> None:
    statuses = listen(connect("operator-1", at=stage.broker), Topics().agent_status("agent-1"), qos=1)
    with TcpProxy(stage.broker.port) as proxy, stage.worker() as worker:
        proxy.set_network(delay_s=0.05)
        with stage.behind(proxy.port).agent_program(tmp_path / "agent", mode="exact") as agent:
            assert _next_status(statuses).state is Presence.ONLINE
            client = connect("client-1", at=stage.broker)
            client.publish(Topics().prompt("agent-1"), LONG.to_bytes(), qos=1)
            wait_for(lambda: len(worker.sessions))
            agent.kill()
            wait_for(lambda: _next_status(statuses).state is Presence.OFFLINE)
            wait_for(lambda: not len(worker.sessions))
