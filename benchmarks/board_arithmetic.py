"""What a board computes for a token beside the model. In: random logits. Out: costs in softmax passes.

The unit is one float32 softmax over the vocabulary, measured in the same run and right beside each function,
so that a busy machine slows both. The bound for a whole token (predict, `q_hat`, draw, uncertainty) is 4.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from edge_agent.history import History
from edge_agent.learned import FEATURES, TABLES
from edge_agent.prediction import predict
from edge_agent.uncertainty import ESTIMATOR_NAMES, LEARNED, estimator
from runtime.sampling import softmax
from schemas.profile import MAX_TABLE_ENTRIES, LearnedModel, ResidualTable
from schemas.sampling import SamplingParameters

VOCABULARIES = (4_096, 32_000, 150_000)
_ROUNDS = 60
_K = 16


def run() -> None:
    """Print a table: a row an estimator, a column a vocabulary."""
    table = Table(title=f"one token, in passes of softmax (median of {_ROUNDS} rounds)", title_justify="left")
    table.add_column("")
    for size in VOCABULARIES:
        table.add_column(f"{size:,} tokens", justify="right")
    rng = np.random.default_rng(0)
    logits = {size: _logits(size, rng) for size in VOCABULARIES}
    for name in (*ESTIMATOR_NAMES, LEARNED):
        cells = [f"{token_passes(logits[size], name, SamplingParameters()):.1f}" for size in VOCABULARIES]
        table.add_row(f"whole token, {name}", *cells)
    filtered = SamplingParameters(top_k=40, top_p=0.9, min_p=0.05)
    cells = [f"{token_passes(logits[size], 'improbability', filtered):.1f}" for size in VOCABULARIES]
    table.add_row("the same with top-k, top-p and min-p, improbability", *cells)
    Console().print(table)


def token_passes(logits: np.ndarray, estimator_name: str, parameters: SamplingParameters) -> float:
    """The cost of all arithmetic for one token over that of one softmax."""
    rng = np.random.default_rng(1)
    estimate = estimator(estimator_name, rng, _learned_model())
    ids = [1, 2]
    history = History(ids)

    def token() -> None:
        ids.append(len(ids) % 50)
        prediction = predict(logits, parameters, history)
        draft = prediction.truncated(_K).draw(rng)
        estimate(prediction, draft.token_id)

    return _ratio(token, lambda: softmax(logits))


def _learned_model() -> LearnedModel:
    """Of full size; what it says does not matter here."""
    count = len(FEATURES)
    table = ResidualTable(keys=tuple(range(MAX_TABLE_ENTRIES)), thousandths=(1,) * MAX_TABLE_ENTRIES)
    return LearnedModel(
        features=FEATURES,
        means=(0.0,) * count,
        scales=(1.0,) * count,
        weights=(0.1,) * count,
        intercept=0.0,
        **dict.fromkeys(TABLES, table),
    )


def _ratio(function: Callable[[], object], unit: Callable[[], object]) -> float:
    """The median over rounds of time / time, both measured back to back."""
    function(), unit()  # the first call takes memory and looks at libraries
    return float(
        np.median([timeit.timeit(function, number=3) / timeit.timeit(unit, number=3) for _ in range(_ROUNDS)])
    )


def _logits(size: int, rng: np.random.Generator) -> np.ndarray:
    """Logits like a model's: a wide bulk, and a few candidates far above it."""
    logits = rng.normal(scale=3.0, size=size).astype(np.float32)
    logits[:8] = logits.max() + np.linspace(6, 1, 8)
    return logits
