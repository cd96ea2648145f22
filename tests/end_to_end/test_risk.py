"""The risk is held and shown, over real models and a network that loses verdicts."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tcp_proxy import TcpProxy
from cloud_broker_worker.worker import Worker
from edge_agent import verifier
from edge_agent.controller import DEFAULT_START, RiskController
from edge_agent.ledger import Origin, Record
from edge_agent.settings import Mode
from edge_agent.usage import RECENT_TOKENS, known_losses
from schemas.frames import Outcome, Verdict
from schemas.messages import AgentMetrics, Prompt, parse_message
from schemas.topics import Topics
from tests.conftest import Connect
from tests.end_to_end.stage import DRAFT_MODEL, Stage, num_missed, read
from tests.mqtt_helpers import listen, payloads

pytestmark = pytest.mark.end_to_end

LOSS = 0.1
QUESTION = Prompt(id="q", text="I would like to plan a weekend by the sea.", max_tokens=24)


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Verdict], bool]], None]:
    """`lose(condition)`: verdicts that it holds for never reach the broker."""
    reply = Worker._reply

    def install(condition: Callable[[Verdict], bool]) -> None:
        def lossy(worker, agent, frame):
            if not (isinstance(frame, Verdict) and condition(frame)):
                reply(worker, agent, frame)

        monkeypatch.setattr(Worker, "_reply", lossy)

    return install


def test_the_risk_is_held_over_any_two_thousand_tokens_though_one_verdict_in_ten_is_lost(
    stage: Stage,
    prompts: tuple[Prompt, ...],
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[Callable[[Verdict], bool]], None],
) -> None:
    monkeypatch.setattr(verifier, "_AGAIN_S", 0.1)
    rng, judged = np.random.default_rng(1), set[tuple[int, int, int]]()

    def one_in_ten(verdict: Verdict) -> bool:
        name = (verdict.session, verdict.epoch, verdict.position)
        is_first = name not in judged
        judged.add(name)
        return is_first and bool(rng.random() < LOSS)  # what is asked again is answered

    lose(one_in_ten)
    records: list[Record] = []
    with stage.worker(), stage.agent(risk=0.02, start_threshold=0.6) as agent:
        for prompt in cycle(prompts):
            records += read(agent, prompt).answer.ledger.records
            if len(records) > RECENT_TOKENS + 300:
                break
    assert all(record.beta is not None for record in records if record.origin is Origin.SKIPPED)
    assert Origin.UNVERIFIED not in {record.origin for record in records}
    sums = np.concatenate([[0.0], np.cumsum(known_losses(records))])
    assert (sums[RECENT_TOKENS:] - sums[:-RECENT_TOKENS]).max() / RECENT_TOKENS <= 0.025
    assert np.mean([record.origin is Origin.SKIPPED for record in records]) > 0.3


def test_a_question_whose_verdict_was_lost_is_asked_again_and_stays_verified(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Callable[[Verdict], bool]], None]
) -> None:
    monkeypatch.setattr(verifier, "_AGAIN_S", 0.1)
    lost: set[tuple[int, int]] = set()

    def first_time(verdict: Verdict) -> bool:
        name = (verdict.epoch, verdict.position)
        is_first = name not in lost
        lost.add(name)
        return is_first

    lose(first_time)
    with stage.worker(), stage.agent(mode=Mode.EXACT, temperature=0) as agent:
        reading = read(agent, QUESTION)
        assert Origin.UNVERIFIED not in reading.origins
        assert num_missed(agent) == 0
    assert lost


def test_the_last_audit_of_an_answer_is_asked_for_again_when_it_was_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Callable[[Verdict], bool]], None]
) -> None:
    monkeypatch.setattr(verifier, "_AGAIN_S", 0.1)
    lost: list[Verdict] = []

    def first_audit(verdict: Verdict) -> bool:
        if verdict.outcome is Outcome.AUDITED and not lost:
            lost.append(verdict)
            return True
        return False

    lose(first_audit)
    with stage.worker() as worker, stage.agent(threshold=1.0) as agent:
        usage = read(agent, QUESTION).answer.usage
        assert usage.audited == usage.skipped == usage.tokens
        assert worker.metrics().opened == 2  # its session had ended with the draft whose verdict was lost
    assert lost


def test_sure_tokens_wait_for_their_audits_rather_than_be_asked_about(
    stage: Stage, endless_answers: None
) -> None:
    """The draft model judges itself: next to nothing is wrong, and the network is slower than the board."""
    prompt = QUESTION.model_copy(update={"max_tokens": 150})
    with (
        stage.worker(model=DRAFT_MODEL),
        TcpProxy(stage.broker.port) as proxy,
        stage.behind(proxy.port).agent(risk=0.1, start_threshold=1.0) as agent,
    ):
        read(agent, prompt)  # learns what skipped tokens cost
        proxy.up.delay_s = proxy.down.delay_s = 0.02
        reading = read(agent, prompt)
        assert reading.origins.count(Origin.SKIPPED) >= 145
        assert reading.answer.usage.audited == reading.answer.usage.skipped
        assert num_missed(agent) == 0


def test_audits_that_do_not_come_hold_an_answer_up_for_one_verdict_timeout(
    stage: Stage, endless_answers: None, lose: Callable[[Callable[[Verdict], bool]], None]
) -> None:
    prompt = QUESTION.model_copy(update={"max_tokens": 60})
    with (
        stage.worker(model=DRAFT_MODEL),
        stage.agent(risk=0.1, start_threshold=1.0, verdict_timeout_s=1.0) as agent,
    ):
        for _ in range(3):
            read(agent, prompt)
        assert isinstance(agent.policy, RiskController)
        assert agent.policy.learned().unaudited_cost < 0.8  # so it expects them to make room
        lose(lambda _verdict: True)
        started_s = time.monotonic()
        origins = read(agent, prompt).origins
        assert time.monotonic() - started_s < 3.0  # one while it is written, one at its end
        assert origins.count(Origin.SKIPPED) <= 11
        assert origins.count(Origin.UNVERIFIED) >= 49


def test_an_agent_remembers_its_threshold_and_its_debt_over_a_restart(stage: Stage, tmp_path: Path) -> None:
    with stage.worker():
        with stage.agent(state_dir=tmp_path) as agent:
            for _ in range(3):
                read(agent, QUESTION)
            assert isinstance(agent.policy, RiskController)
            before = agent.policy.learned()
            assert agent.policy.threshold != DEFAULT_START
        with stage.agent(state_dir=tmp_path) as agent:
            assert isinstance(agent.policy, RiskController)
            assert agent.policy.learned() == before
            assert agent.policy.threshold == list(before.thresholds.values())[-1]
        with stage.agent(state_dir=tmp_path, uncertainty="entropy") as agent:
            assert agent.policy.threshold == DEFAULT_START
        with stage.agent(state_dir=tmp_path, risk=0.05) as agent:
            assert agent.policy.threshold == DEFAULT_START


def test_metrics_show_the_risk_set_the_divergence_with_its_interval_the_skip_share_and_the_threshold(
    stage: Stage, connect: Connect
) -> None:
    inbox = listen(connect("operator-1", at=stage.broker), Topics().agent_metrics("agent-1"))
    answers, thresholds = [], []
    with stage.worker(), stage.agent(risk=0.05, start_threshold=0.3) as agent:
        # Reports have a budget of bytes: the first one comes after some answers.
        while not len(inbox):
            answers.append(read(agent, QUESTION).answer)
            thresholds.append(agent.policy.threshold)
            assert len(answers) < 500
    report = parse_message(AgentMetrics, payloads(inbox, 1)[0])
    assert report.risk == 0.05
    assert report.threshold == thresholds[report.answers - 1]
    records = [record for answer in answers[: report.answers] for record in answer.ledger.records]
    recent, records = report.recent, records[-RECENT_TOKENS:]
    assert recent is not None
    assert recent.tokens == len(records)
    skip_share = np.mean([record.origin is Origin.SKIPPED for record in records])
    assert recent.skip_share == pytest.approx(skip_share, abs=1e-4)
    assert recent.unverified_share == 0
    assert recent.divergence == pytest.approx(known_losses(records).mean(), abs=1e-4)
    assert recent.divergence_margin is not None
    of_one = answers[0].usage.divergence_margin
    assert of_one is not None
    assert 0 < recent.divergence_margin < of_one  # far more is known


def test_a_service_writes_what_it_has_learned_when_it_leaves(stage: Stage, tmp_path: Path) -> None:
    with stage.agent_program(tmp_path / "log", state_dir=tmp_path / "state", connect_timeout_s=0) as agent:
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["agent-agent-1.json"]
