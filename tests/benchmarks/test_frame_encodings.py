"""The comparison of encodings: what it prints, its bound, and the larger vocabulary that it simulates."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from benchmarks import frames
from edge_agent.calibration.drafts import Passage
from edge_agent.calibration.findings import passages_of
from edge_agent.calibration.texts import Stretch
from tests.edge_agent.calibration.made_up import NUM_TOKENS, texts

STRETCHES, SAMPLES = texts(24)
PASSAGES = passages_of(SAMPLES, STRETCHES, [sample.scores[0] for got in SAMPLES.values() for sample in got])


def rows(passages: list[Passage], stretches: list[Stretch], num_tokens: int) -> dict[str, list[float]]:
    """The mean bytes of each row, by its name; of drafts first, then of openings under the name `prompt: …`."""
    out = io.StringIO()
    frames.show(passages, stretches, num_tokens, 0.05, Console(file=out, width=300))
    found: dict[str, list[float]] = {}
    for line in out.getvalue().splitlines():
        means = [float(mean) for mean in re.findall(r"\d+, (\d+\.\d)", line)]
        if means:
            name = line.split("│")[1].strip()
            found[f"prompt: {name}" if len(means) == 1 else name] = means
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, list[float]]:
    return rows(PASSAGES, STRETCHES, NUM_TOKENS)


def test_every_encoding_is_in_the_table_for_drafts_and_for_openings(found):
    drafts = [name for name in found if not name.startswith("prompt")]
    assert drafts[0] == "raw columns"
    assert drafts[-1] == "entropy of the integers"
    assert len(drafts) == 8
    assert {f"prompt: {name}" for name in drafts[:-1]} <= set(found)
    assert "prompt: 9 bits an id" in found


def test_what_may_stay_raw_is_never_longer_than_raw_and_nothing_beats_its_bound(found):
    for column, raw in enumerate(found["raw columns"]):
        assert found["zstd or raw"][column] <= raw
        assert found["zstd, always"][column] >= found["zstd or raw"][column]
        assert found["entropy of the integers"][column] < min(
            sizes[column]
            for name, sizes in found.items()
            if len(sizes) > 1 and name != "entropy of the integers"
        )


def test_ranks_make_the_size_of_the_vocabulary_irrelevant(found):
    passages, stretches = frames._spread(PASSAGES, STRETCHES, NUM_TOKENS, 150_000)
    large = rows(passages, stretches, 150_000)
    assert large["raw columns"][1] > found["raw columns"][1] + 1
    assert large["ranks, raw"][1] == pytest.approx(found["ranks, raw"][1], abs=0.5)
    assert large["entropy of the integers"] == pytest.approx(found["entropy of the integers"], abs=0.05)


def test_a_larger_vocabulary_keeps_the_order_of_ids_and_holds_them_all():
    passages, stretches = frames._spread(PASSAGES, STRETCHES, NUM_TOKENS, 150_000)
    for before, after in zip(PASSAGES, passages, strict=True):
        for old, new in zip(before.samples, after.samples, strict=True):
            assert list(new.token_ids) == sorted(set(new.token_ids))
            assert new.token_ids.index(new.token_id) == old.token_ids.index(old.token_id)
            assert max(new.token_ids) < 150_000
    assert len(stretches) == len(STRETCHES)
