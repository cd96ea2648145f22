"""A stage for each test, and what the target model says by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cloud_broker_worker.private_broker import PrivateBroker
from deploy.demo.prompts import load_prompts
from runtime.llama import Model
from schemas.messages import Prompt
from tests.conftest import USERS
from tests.end_to_end.stage import TARGET_MODEL, Stage
from tests.end_to_end.target_alone import TargetAlone

# What an answer may have; the models end most of theirs before.
MAX_TOKENS = 48


@pytest.fixture
def stage(private_broker: Callable[[], PrivateBroker]) -> Stage:
    """A stage for this test alone."""
    return Stage(private_broker())


@pytest.fixture(scope="module")
def lasting_stage() -> Iterator[Stage]:
    """A stage for tests that break nothing."""
    with PrivateBroker(USERS) as broker:
        yield Stage(broker)


@pytest.fixture(scope="session")
def prompts() -> tuple[Prompt, ...]:
    """The demo's prompts, which the models have not been trained on."""
    return tuple(
        prompt.as_prompt(f"prompt-{index}", max_tokens=MAX_TOKENS)
        for index, prompt in enumerate(load_prompts())
    )


@pytest.fixture(scope="session")
def target_alone() -> Iterator[TargetAlone]:
    """The demo's target model, without agents, workers and brokers."""
    with TargetAlone(TARGET_MODEL) as target:
        yield target


@pytest.fixture
def endless_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers end with `max_tokens` alone, so that there is time to break something."""
    monkeypatch.setattr(Model, "ends_generation", lambda _model, _token_id: False)
