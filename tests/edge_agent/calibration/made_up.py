"""Texts and samples made up for tests, drawn and audited as a calibration would: `p` is known, so is the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_agent.calibration.drafts import Passage
from edge_agent.calibration.replay import WIDTHS, Sample, reach, widest
from edge_agent.calibration.texts import Stretch
from edge_agent.learned import PREDICTION_FEATURES, TABLES
from edge_agent.uncertainty import ESTIMATOR_NAMES

NUM_TOKENS = 400


@dataclass(frozen=True)
class Context:
    """One position's `q` and `p`, `[vocab]` each."""

    q: np.ndarray
    p: np.ndarray


def context(rng: np.random.Generator) -> Context:
    """Surer or less sure, over any few tokens, low ids more often."""
    q = np.full(NUM_TOKENS, 1e-6)
    likely = np.minimum(rng.geometric(0.02, 12), NUM_TOKENS) - 1
    q[likely] += rng.dirichlet(np.full(12, rng.choice([0.05, 0.5, 3.0])))
    p = q * rng.lognormal(0, 0.8, NUM_TOKENS)
    return Context(q / q.sum(), p / p.sum())


def sample(given: Context, rng: np.random.Generator) -> Sample:
    """What a calibration would have learned at this position."""
    token_ids = np.flatnonzero(given.q >= 1 / 1024).astype(np.int32)
    shares = given.q[token_ids]
    draft = widest(shares, token_ids).draw(rng)
    doubt = 1 - given.q[draft.token_id]
    held = np.cumsum(np.sort(given.q)[::-1])
    return Sample(
        token_id=draft.token_id,
        weight=draft.weight,
        keys=(draft.token_id, *range(1, len(TABLES))),
        p=min(given.p[draft.token_id], reach(shares, token_ids, draft.token_id) / 256),
        scores=(doubt,) * len(ESTIMATOR_NAMES),
        features=tuple([doubt] * len(PREDICTION_FEATURES)),
        token_ids=tuple(token_ids.tolist()),
        shares=tuple(shares.tolist()),
        left_out=tuple(float(max(0.0, 1 - held[width - 1])) for width in WIDTHS),
    )


def texts(
    num_documents: int = 20, length: int = 30, seed: int = 0
) -> tuple[list[Stretch], dict[int, list[Sample]]]:
    """Documents of two stretches each, and their samples by number of the stretch."""
    rng = np.random.default_rng(seed)
    stretches: list[Stretch] = []
    samples: dict[int, list[Sample]] = {}
    for document in range(num_documents):
        # Documents repeat phrases, as texts of one kind do.
        words = [
            int(word) for word in rng.integers(0, 8, 6) for word in range(word * 40, word * 40 + length // 2)
        ]
        for begin in (20, 20 + length):
            number = len(stretches)
            prompt, text = tuple(words[:begin]), tuple(words[begin : begin + length])
            stretches.append(Stretch(document, prompt, text))
            samples[number] = [sample(context(rng), rng) for _ in range(len(text) + 1)]
    return stretches, samples


def passages(num_documents: int = 20, seed: int = 0) -> list[Passage]:
    """The same, put together: one minus the draft token's share is the uncertainty."""
    stretches, samples = texts(num_documents, seed=seed)
    return [
        Passage(
            s.document, len(s.prompt_ids), samples[n], [each.scores[0] for each in samples[n]], s.is_held_out
        )
        for n, s in enumerate(stretches)
    ]
