"""What of a text is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from edge_agent.calibration.texts import load_stretches
from runtime.llama import Model
from tests.end_to_end.stage import DRAFT_MODEL


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    model = Model(DRAFT_MODEL)
    yield model
    model.close()


def test_a_turn_of_weight_0_is_context_and_not_measured(model, tmp_path):
    file = tmp_path / "text.jsonl"
    turns = [
        {"role": "user", "content": "A table for two."},
        {"role": "assistant", "content": "In which city?", "weight": 0},
        {"role": "user", "content": "In Napa."},
        {"role": "assistant", "content": "Shall I book it?"},
    ]
    file.write_text((json.dumps({"messages": turns}) + "\n") * 10)
    stretches = load_stretches(model, [file], 512)
    assert len(stretches) == 10
    for stretch in stretches:
        assert list(stretch.text_ids) == model.tokenize("Shall I book it?")
        assert b"In which city?" in b"".join(model.piece(i) for i in stretch.prompt_ids)
