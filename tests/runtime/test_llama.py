"""The door to llama.cpp."""

from __future__ import annotations

from runtime.llama import Model
from tests.end_to_end.stage import DRAFT_MODEL


def test_a_vocabulary_without_weights_is_that_of_the_whole_model():
    bare, whole = Model(DRAFT_MODEL, vocab_only=True), Model(DRAFT_MODEL)
    texts, kinds = bare.token_table().texts, bare.token_table().kinds.tolist()
    assert texts == whole.token_table().texts
    assert kinds == whole.token_table().kinds.tolist()
    assert (bare.num_meant, bare.eos, bare.name) == (whole.num_meant, whole.eos, whole.name)
    bare.close()
    whole.close()
