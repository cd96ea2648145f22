"""The promise of exact verification: what comes out is what the target model would have said by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cloud_broker_worker.worker import Worker
from edge_agent.settings import Mode
from schemas.messages import Prompt
from tests.end_to_end.conftest import MAX_TOKENS
from tests.end_to_end.stage import Stage, read
from tests.end_to_end.target_alone import Greedy, Noise, TargetAlone

pytestmark = pytest.mark.end_to_end

logger = logging.getLogger(__name__)

NUM_PROMPTS = 60
EXACT: dict[str, Any] = {"mode": Mode.EXACT, "risk": 0, "temperature": 0}


@pytest.fixture(scope="module")
def worker(lasting_stage: Stage) -> Iterator[Worker]:
    """One worker for all of these tests."""
    with lasting_stage.worker() as worker:
        yield worker


@dataclass(frozen=True)
class Yardstick:
    """The target's own answer to each prompt, and how much the shape of its passes changes its mind.

    `alone` is the noise where a worker serves one agent, `together` where it serves several.
    """

    target: TargetAlone
    texts: list[Greedy]
    alone: Noise
    together: Noise

    @property
    def gaps(self) -> npt.NDArray[np.float32]:
        """The gap between the two best logits at every place of the texts."""
        return np.concatenate([text.gaps for text in self.texts])

    def check(self, answers: list[list[int]], noise: Noise) -> None:
        """The first prompts' answers are the same, token for token, but where the noise explains it."""
        texts = self.texts[: len(answers)]
        compared = [self.target.compare(own, ids) for own, ids in zip(texts, answers, strict=True)]
        gaps = np.concatenate([own.gaps for own in texts])
        explained = noise.explains(gaps)
        different = [gap for comparison in compared for gap in comparison.gaps_where_different]
        logger.info(
            "%d answers of %d tokens: %d differ; the two best logits lie within the noise (%.4f) at %d, "
            "which explains %.2f",
            len(answers),
            sum(comparison.num_places for comparison in compared),
            len(different),
            noise.most,
            (gaps <= noise.most).sum(),
            explained,
        )
        assert all(gap <= noise.most for gap in different), "a place differs that is not close"
        # Four standard deviations of a count with that mean, and one for where that is next to nothing.
        assert len(different) <= explained + 4 * explained**0.5 + 1


@pytest.fixture(scope="module")
def yardstick(target_alone: TargetAlone, prompts: tuple[Prompt, ...]) -> Yardstick:
    """What the target says by itself to the first prompts."""
    chosen = [target_alone.prompt_ids(prompt) for prompt in prompts[:NUM_PROMPTS]]
    texts = [target_alone.greedy(prompt_ids, MAX_TOKENS) for prompt_ids in chosen]
    alone, together = target_alone.noise_alone(texts[::2]), target_alone.noise_together(texts)
    return Yardstick(target_alone, texts, alone, together)


def ask_all(
    stage: Stage, prompts: Sequence[Prompt], name: str = "agent-1", **options: Any
) -> list[list[int]]:
    """The tokens of the answers to all prompts, from one new agent. None is unverified."""
    answers = []
    with stage.agent(name, **options) as agent:
        for prompt in prompts:
            reading = read(agent, prompt)
            assert reading.answer.usage.unverified == 0
            answers.append(reading.ids)
    return answers


def test_the_noise_is_small_beside_what_separates_the_two_best_tokens(yardstick: Yardstick) -> None:
    # Else the tests below would excuse too much.
    gaps = yardstick.gaps
    for noise in (yardstick.alone, yardstick.together):
        assert noise.most < np.median(gaps) / 4
        assert noise.explains(gaps) < len(gaps) / 50


def test_at_risk_0_and_temperature_0_the_text_is_the_targets_own_token_for_token(
    lasting_stage: Stage, worker: Worker, prompts: tuple[Prompt, ...], yardstick: Yardstick
) -> None:
    answers = ask_all(lasting_stage, prompts[:NUM_PROMPTS], **EXACT)
    assert len(answers) >= 50
    yardstick.check(answers, yardstick.alone)


@pytest.mark.parametrize("options", [{"risk": 0}, {"threshold": -0.5}], ids=str)
def test_so_it_is_where_risk_0_or_a_threshold_below_0_verifies_all(
    lasting_stage: Stage,
    worker: Worker,
    prompts: tuple[Prompt, ...],
    yardstick: Yardstick,
    *,
    options: dict[str, Any],
) -> None:
    answers = ask_all(lasting_stage, prompts[:12], mode=Mode.OPPORTUNISTIC, temperature=0, **options)
    yardstick.check(answers, yardstick.alone)


def test_so_it_is_for_two_agents_at_once(
    lasting_stage: Stage, worker: Worker, prompts: tuple[Prompt, ...], yardstick: Yardstick
) -> None:
    shares = {"agent-1": prompts[:NUM_PROMPTS:2], "agent-2": prompts[1:NUM_PROMPTS:2]}
    answers: dict[str, list[list[int]]] = {}

    def ask(name: str) -> None:
        answers[name] = ask_all(lasting_stage, shares[name], name, **EXACT)

    passes_before = worker.metrics().target_passes
    threads = [threading.Thread(target=ask, args=(name,)) for name in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    in_turn = [ids for pair in zip(*(answers[name] for name in shares), strict=True) for ids in pair]
    yardstick.check(in_turn, yardstick.together)
    metrics = worker.metrics()
    logger.info("%d passes for %d drafts since the start", metrics.target_passes, metrics.drafts)
    assert metrics.target_passes > passes_before


def test_a_seeded_answer_is_the_same_each_time(
    lasting_stage: Stage, worker: Worker, prompts: tuple[Prompt, ...]
) -> None:
    options: dict[str, Any] = {"temperature": 0.7, "risk": 0, "seed": 7}
    first = ask_all(lasting_stage, prompts[:8], **options)
    assert ask_all(lasting_stage, prompts[:8], **options) == first
    assert ask_all(lasting_stage, prompts[:8], **(options | {"seed": 8})) != first


def test_a_seeded_answer_is_the_same_whatever_was_answered_before(
    lasting_stage: Stage, worker: Worker, prompts: tuple[Prompt, ...]
) -> None:
    # The first turns leave the agent's cache warm for the whole conversation.
    conversations = [prompt for prompt in prompts if prompt.messages and len(prompt.messages) > 1][:8]
    with_beginnings = [
        each
        for prompt in conversations
        for each in (prompt.model_copy(update={"messages": (prompt.messages or ())[:1]}), prompt)
    ]
    options: dict[str, Any] = {"temperature": 1.0, "risk": 0, "seed": 7}
    answers = ask_all(lasting_stage, with_beginnings, **options)
    assert answers[1::2] == ask_all(lasting_stage, conversations, **options)
