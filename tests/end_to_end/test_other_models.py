"""Any pair of one vocabulary family works, whatever its size, padding and template; any other is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloud_broker_worker.private_broker import PrivateBroker
from edge_agent.ledger import Origin
from edge_agent.settings import Mode
from schemas.messages import Prompt
from tests.conftest import USERS
from tests.end_to_end.stage import VERIFIED, Stage, read
from tests.end_to_end.target_alone import TargetAlone
from tests.gguf_files import Plan, write_gguf
from tests.mqtt_helpers import wait_for

pytestmark = pytest.mark.end_to_end

NUM_TOKENS, NUM_DRAFT, NUM_TARGET = 150_000, 150_016, 150_144
PROMPTS = [
    Prompt(id=f"prompt-{index}", text=text, max_tokens=24)
    for index, text in enumerate(("Is the inn near the river?", "Out there?", "Name the other author.", "A"))
]


@dataclass(frozen=True)
class Pair:
    """Files of a draft model and a target model."""

    draft: Path
    target: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One large vocabulary, padded to two sizes; alone, the target would say nothing but padding."""
    folder = tmp_path_factory.mktemp("models")
    draft = Plan("large-draft", NUM_TOKENS, NUM_DRAFT, drift=0.1)
    target = Plan("large-target", NUM_TOKENS, NUM_TARGET, tempting_from=NUM_DRAFT)
    return Pair(write_gguf(folder / "draft.gguf", draft), write_gguf(folder / "target.gguf", target))


@pytest.fixture(scope="module")
def large_stage(pair: Pair) -> Iterator[Stage]:
    """A worker with the large target model."""
    with PrivateBroker(USERS) as broker:
        stage = Stage(broker)
        with stage.worker(model=pair.target, max_sessions=4):
            yield stage


def test_exact_answers_are_the_targets_own_within_the_vocabulary_that_both_share(
    large_stage: Stage, pair: Pair
) -> None:
    with (
        TargetAlone(pair.target, num_shared=NUM_DRAFT) as target,
        large_stage.agent(model=pair.draft, mode=Mode.EXACT, temperature=0) as agent,
    ):
        for prompt in PROMPTS:
            own = target.greedy(target.prompt_ids(prompt), 24)
            reading = read(agent, prompt)
            compared = target.compare(own, reading.ids)
            assert max(compared.gaps_where_different, default=0.0) <= target.noise_alone([own]).most
            assert {Origin.ACCEPTED, Origin.RECOVERED} <= set(reading.origins) <= set(VERIFIED)


@pytest.mark.parametrize("options", [{"risk": 0.05}, {"mode": Mode.EXACT}], ids=["in doubt", "exact"])
def test_no_sampled_token_lies_outside_the_vocabulary_that_both_share(
    large_stage: Stage, pair: Pair, options: dict[str, Any]
) -> None:
    recovered = []
    with large_stage.agent(model=pair.draft, temperature=0.7, seed=3, **options) as agent:
        for prompt in PROMPTS:
            reading = read(agent, prompt)
            assert Origin.UNVERIFIED not in reading.origins
            assert max(reading.ids) < NUM_DRAFT
            pairs = zip(reading.ids, reading.origins, strict=True)
            recovered += [token_id for token_id, origin in pairs if origin is Origin.RECOVERED]
    assert recovered


def test_a_draft_model_padded_further_than_its_target_works_too(stage: Stage, pair: Pair) -> None:
    with stage.worker(model=pair.draft), stage.agent(model=pair.target, mode=Mode.EXACT, seed=3) as agent:
        reading = read(agent, PROMPTS[0])
        assert set(reading.origins) <= set(VERIFIED)
        assert max(reading.ids) < NUM_TOKENS


@pytest.mark.parametrize("options", [{"risk": 0.05}, {"mode": Mode.EXACT}], ids=["in doubt", "exact"])
def test_a_draft_model_that_knows_more_tokens_than_its_target_keeps_to_those_that_both_know(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    # Alone, this draft model would say nothing but words that its target has never heard.
    taught = Plan("taught", 600, 650, num_added=40, tempting_from=600, drift=0.1)
    draft = write_gguf(tmp_path / "draft.gguf", taught)
    target = write_gguf(tmp_path / "target.gguf", Plan("untaught", 600, 600))
    with stage.worker(model=target), stage.agent(model=draft, seed=3, **options) as agent:
        assert agent.model.num_meant == 640
        for prompt in PROMPTS:
            reading = read(agent, prompt)
            assert max(reading.ids) < 600
            assert Origin.UNVERIFIED not in reading.origins
    assert not caplog.messages


@pytest.mark.parametrize(("num_draft", "who_refuses"), [(600, "both"), (640, "the agent alone")])
def test_a_foreign_vocabulary_is_refused_by_name(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture, num_draft: int, who_refuses: str
) -> None:
    draft = write_gguf(tmp_path / "draft.gguf", Plan("apple", num_draft, num_draft, filler="a"))
    target = write_gguf(tmp_path / "target.gguf", Plan("banana", 640, 640, filler="b"))
    with stage.worker(model=target) as worker, caplog.at_level(logging.WARNING):
        with stage.agent(model=draft, mode=Mode.EXACT, connect_timeout_s=0.3) as agent:
            reading = read(agent, PROMPTS[0])
            assert set(reading.origins) == {Origin.UNVERIFIED}
            if who_refuses == "both":
                wait_for(lambda: worker.metrics().refused)
        said = {record.name.split(".")[0]: record.getMessage() for record in caplog.records}
    by_agent = said["edge_agent"]
    assert "banana" in by_agent
    assert "vocabulary" in by_agent
    assert "use models of one family" in by_agent
    if who_refuses == "both":
        assert "agent-1" in said["cloud_broker_worker"]
        assert "banana" in said["cloud_broker_worker"]
    else:
        assert set(said) == {"edge_agent"}
