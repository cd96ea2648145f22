"""Calibration through a real broker and worker, and what agents then do with the profile."""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.worker import Worker
from edge_agent.agent import Agent
from edge_agent.calibration import command
from edge_agent.calibration.collecting import Collector
from edge_agent.calibration.replay import Sample, reach
from edge_agent.calibration.texts import Stretch, load_stretches
from edge_agent.controller import DEFAULT_START
from edge_agent.history import History
from edge_agent.learned import PREDICTION_FEATURES, TABLES
from edge_agent.settings import AgentSettings, CalibrateSettings
from runtime.llama import Context, ContextOptions, Model, Span
from runtime.profile_file import read_profile
from runtime.sampling import softmax
from schemas.errors import ConfigurationError
from schemas.messages import Prompt
from tests.end_to_end.stage import DRAFT_MODEL, TARGET_MODEL, Stage
from tests.profiles import made_up_profile

pytestmark = pytest.mark.end_to_end

# Made up for this test, in the style that the demo's models know.
TURNS = (
    ("user", "I want to find a restaurant in {city}."),
    ("assistant", "What kind of food would you like to have in {city}?"),
    ("user", "Something like {food}, please."),
    ("assistant", "There is a nice {food} restaurant in {city}. Do you want to book a table there?"),
    ("user", "Yes, for {count} people."),
    ("assistant", "Please confirm: a table for {count} people in {city} at a {food} restaurant today."),
)


@pytest.fixture
def text(tmp_path):
    lines = []
    for city, food, count in itertools.product(
        ("Oakland", "San Jose"), ("Thai", "Mexican", "French"), ("two", "four")
    ):
        turns = [(role, words.format(city=city, food=food, count=count)) for role, words in TURNS]
        lines.append(json.dumps({"messages": [{"role": role, "content": words} for role, words in turns]}))
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(lines))
    return path


def _settings(stage: Stage, text, **options) -> CalibrateSettings:
    usual = {"model": DRAFT_MODEL, "threads": 1, "text": (text,), "output": text.with_name("profile.json")}
    return CalibrateSettings(**(usual | stage.login("agent-1") | options))


def _drawn(samples: Path) -> list[int]:
    """The draft tokens in a file of samples, in the order of the text."""
    lines = [json.loads(line) for line in samples.read_text().splitlines()[1:]]
    return [row[0] for _, rows in sorted(lines) for row in rows]


def test_an_interrupted_calibration_goes_on_and_ends_as_if_nothing_had_been(stage, text, monkeypatch):
    with stage.worker():
        whole = command.calibrate(_settings(stage, text, output=text.with_name("whole.json")))
        collect, collected = Collector.collect, []

        def interrupt(self, stretch, number):
            if number == 5 and number not in collected:
                collected.append(number)
                raise KeyboardInterrupt
            collected.append(number)
            return collect(self, stretch, number)

        monkeypatch.setattr(Collector, "collect", interrupt)
        with pytest.raises(KeyboardInterrupt):
            command.calibrate(_settings(stage, text))
        assert not text.with_name("profile.json").exists()
        resumed = command.calibrate(_settings(stage, text))
    assert collected[:6] == [0, 1, 2, 3, 4, 5]
    assert collected[6:8] == [5, 6]
    assert resumed.fitted == whole.fitted
    assert resumed.held_out == whole.held_out
    # What the cache held before the interruption moves last digits of logits, and so a draw now and then.
    drawn, again = (_drawn(text.with_name(f"{name}.samples.jsonl")) for name in ("whole", "profile"))
    assert len(drawn) == len(again) == 614
    assert sum(a == b for a, b in zip(drawn, again, strict=True)) >= 0.97 * len(drawn)
    assert "<svg" in text.with_name("profile.html").read_text()


def test_the_worker_tells_the_probabilities_that_the_target_model_has_after_the_text_itself(stage, text):
    stretch, samples = _collected(stage, text)
    assert len(samples) == len(stretch.text_ids) + 1
    model = Model(TARGET_MODEL)
    context = Context(model, ContextOptions(num_cells=1280, max_outputs=128))
    ids = [*stretch.prompt_ids, *stretch.text_ids]
    (rows,) = context.decode([Span(0, 0, ids, len(samples))])
    weights = [_reach(sample) / 256 for sample in samples]
    expected = [
        min(weight, softmax(row, 0.7)[sample.token_id])
        for row, sample, weight in zip(rows, samples, weights, strict=True)
    ]
    context.close()
    model.close()
    # A byte of the square root, and passes of another shape.
    assert [sample.p for sample in samples] == pytest.approx(np.array(expected), abs=0.02)
    assert min(expected) < 0.3
    assert max(expected) > 0.9


def test_a_drawn_token_is_judged_by_the_text_before_it_alone(stage, text):
    stretch, samples = _collected(stage, text)
    ids = [*stretch.prompt_ids, *stretch.text_ids]
    names = [f"{length} repeat, share followed by d" for length in (1, 2, 3)]
    for at, sample in enumerate(samples, start=len(stretch.prompt_ids)):
        keys = dict(zip(TABLES, sample.keys, strict=True))
        assert (keys["draft_token"], keys["previous_token"]) == (sample.token_id, ids[at - 1])
        assert keys["triple"] == zlib.crc32(np.array([*ids[at - 2 : at], sample.token_id], "<u4").tobytes())
        features = dict(zip(PREDICTION_FEATURES, sample.features, strict=True))
        shares = History(ids[:at]).copied(sample.token_id)
        assert [features[name] for name in names] == [share or 0.0 for share in shares]


def _collected(stage: Stage, text: Path) -> tuple[Stretch, list[Sample]]:
    """A stretch of the text, and its samples."""
    with stage.worker(), stage.agent() as agent:
        assert agent.verifier is not None
        collector = Collector(
            agent.drafter,
            agent.verifier,
            sampling=agent.settings.sampling,
            seed=0,
            num_tokens=agent.model.num_meant,
        )
        stretch = load_stretches(agent.model, (text,), 1280)[7]
        return stretch, collector.collect(stretch, 0)


def _reach(sample: Sample) -> int:
    return reach(np.array(sample.shares), np.array(sample.token_ids), sample.token_id)


def test_no_more_text_is_read_than_positions_are_asked_for(text, monkeypatch):
    model = Model(DRAFT_MODEL)
    everything = load_stretches(model, (text,), 1280)
    calls: list[object] = []
    chat_prompt_ids = Model.chat_prompt_ids

    def counted(model: Model, messages: list[object]) -> list[int]:
        calls.append(messages)
        return chat_prompt_ids(model, messages)

    monkeypatch.setattr(Model, "chat_prompt_ids", counted)
    some = load_stretches(model, (text,), 1280, 150)
    model.close()
    assert some == everything[: len(some)]
    assert 150 <= sum(len(stretch.text_ids) + 1 for stretch in some) < 300
    assert len(calls) < len(everything) / 2
    assert all(stretch.begins for stretch in some)  # every turn is shorter than a stretch


def test_a_stretch_that_goes_on_in_a_turn_begins_none(tmp_path):
    model = Model(DRAFT_MODEL)
    path = tmp_path / "plain.txt"
    path.write_text("A table for two in Oakland, please. " * 300)
    stretches = load_stretches(model, (path,), 1280)
    model.close()
    assert [stretch.begins for stretch in stretches[:5]] == [True, False, False, False, True]


def test_agents_find_the_profile_that_a_worker_publishes_and_judge_by_it(stage, text):
    with stage.worker():
        profile = command.calibrate(_settings(stage, text))
    with stage.worker(profile=text.with_name("profile.json")), stage.agent() as agent:
        agent.answer(Prompt(id="a", text="Hello"))
        assert agent.profile == profile
        assert agent.policy.threshold == profile.start_for(profile.default_estimator, 0.02)
    with stage.worker(), stage.agent(uncertainty="entropy", start_threshold=0.3) as agent:
        assert agent.profile == profile  # the broker has kept it
        assert agent.policy.threshold == 0.3


def test_without_a_profile_an_agent_starts_carefully(stage):
    with stage.worker(), stage.agent() as agent:
        assert agent.profile is None
        assert agent.policy.threshold == DEFAULT_START


def test_a_profile_that_another_version_has_left_on_the_broker_is_done_without_in_one_line(stage, caplog):
    with stage.worker() as worker, stage.agent() as agent:
        pair = agent.pair()
        assert pair is not None
        mine = made_up_profile()
        learned = mine.learned.model_copy(update={"features": mine.learned.features[::-1]})
        foreign = mine.model_copy(update={"pair": pair, "learned": learned})
        topic = worker.topics.profile(foreign.id)
        worker.connection.publish(topic, foreign.to_bytes(), qos=1, retain=True)
    with stage.worker(), stage.agent() as agent:
        assert agent.profile is None
        answer, pieces = agent.answer(Prompt(id="a", text="Hello"))
        assert list(pieces)
        assert answer.usage.unverified == 0
    assert [line for line in caplog.messages if "calibrate the pair anew" in line] == [
        "the profile's learned estimator is of another version of Hunch; calibrate the pair anew; going on without it"
    ]


def test_a_profile_of_other_models_is_refused_by_agent_and_worker_in_one_line(stage, tmp_path):
    path = tmp_path / "foreign.json"
    path.write_bytes(made_up_profile().to_bytes())
    agent = AgentSettings(model=DRAFT_MODEL, profile=path, **stage.login("agent-1"))
    with pytest.raises(ConfigurationError, match="calibrate this pair"):
        Agent(agent)
    worker = WorkerSettings(model=TARGET_MODEL, profile=path, **stage.login("worker-1"))
    with pytest.raises(ConfigurationError, match="calibrate this pair"):
        Worker(worker)


def test_a_file_that_is_no_profile_is_refused_in_one_line(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"version": 9}')
    with pytest.raises(ConfigurationError, match="is no profile of this version"):
        read_profile(path)
    with pytest.raises(ConfigurationError, match="cannot read the profile"):
        read_profile(tmp_path / "missing.json")


def test_without_a_worker_calibration_says_so(stage, text):
    with pytest.raises(ConfigurationError, match="no worker to calibrate with"):
        command.calibrate(_settings(stage, text, connect_timeout_s=0.5))
