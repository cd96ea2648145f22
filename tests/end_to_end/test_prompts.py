"""The demo's own prompts fit its models."""

from __future__ import annotations

import json

import pytest

from deploy.demo.prompts import load_prompts
from tests.end_to_end.conftest import MAX_TOKENS
from tests.end_to_end.target_alone import TargetAlone

pytestmark = pytest.mark.end_to_end

PROMPTS = load_prompts()


def test_there_are_enough_prompts_of_every_kind() -> None:
    assert len({prompt.title for prompt in PROMPTS}) == len(PROMPTS) >= 60
    assert len({prompt.turns for prompt in PROMPTS}) == len(PROMPTS)
    assert sum(len(prompt.turns) > 1 for prompt in PROMPTS) >= len(PROMPTS) / 3
    assert sum(prompt.next == "call" for prompt in PROMPTS) >= 8


def test_every_prompt_leaves_room_for_its_answer(target_alone: TargetAlone) -> None:
    for prompt in PROMPTS:
        prompt_ids = target_alone.prompt_ids(prompt.as_prompt("any"))
        assert len(prompt_ids) + 2 * MAX_TOKENS < target_alone.model.context_length


def test_a_prompt_for_a_tool_call_differs_from_the_templates_own_by_its_last_header_alone(
    target_alone: TargetAlone,
) -> None:
    (header,) = target_alone.model.tokenize("<|call|>", special=True)
    for prompt in PROMPTS:
        prompt_ids = target_alone.prompt_ids(prompt.as_prompt("any"))
        turns = [turn.model_dump() for turn in prompt.turns]
        by_template = target_alone.model.chat_prompt_ids(turns)
        assert prompt_ids[:-1] == by_template[:-1]
        assert prompt_ids[-1] == (header if prompt.next == "call" else by_template[-1])


def test_tool_calls_and_results_in_the_prompts_are_json_as_the_models_know_it() -> None:
    for prompt in PROMPTS:
        for turn in prompt.turns:
            if turn.role in {"call", "result"}:
                content = json.loads(turn.content)
                assert turn.content == json.dumps(content)
                names = [name for name in content if name != "call"]
                assert names == sorted(names)
