"""The loss of the papers' tokens, against what their judgement really gives."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.paper.divergence import Judged, losses, published_bias
from cloud_broker_worker.baselines import fill_uniformly, judge_as_published
from runtime.sampling import draw


def distributions(size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.full(size, 0.6), 2).astype(np.float32)
    return p, q


def test_judging_by_what_was_drawn_from_has_no_bias():
    p, q = distributions()
    assert published_bias(p, q, q.astype(np.float64)) == pytest.approx(0.0, abs=1e-6)


def test_the_bias_is_the_distance_of_what_comes_out():
    p, q = distributions()
    filled = fill_uniformly(q, np.argsort(-q)[:2])
    rng = np.random.default_rng(0)
    num_drawn = 40_000
    counts = np.zeros(len(p))
    for _ in range(num_drawn):
        counts[judge_as_published(p, filled, draw(q, rng.random()), rng.random(2))] += 1
    seen = np.abs(counts / num_drawn - p).sum() / 2
    assert seen > 0.05  # there is a bias to speak of
    assert published_bias(p, q, filled) == pytest.approx(seen, abs=0.01)


def test_an_entry_rounded_to_nothing_is_always_accepted_where_the_target_allows_it():
    p = np.array([0.5, 0.5, 0.0], np.float32)
    q = np.array([0.6, 0.3, 0.1], np.float32)
    # Accepted: 0.5 of the first (q_filled 0.6), all of the second; the third never. What is left, 0.2, goes to
    # max(p - q_filled, 0) = (0, 0.5, 0): the second. So (0.5, 0.5, 0) comes out, by luck unbiased.
    assert published_bias(p, q, np.array([0.6, 0.0, 0.0])) == pytest.approx(0.0, abs=1e-6)
    # Judged as if it were certain to be the first: 0.3 of it (0.6 * 0.5) is accepted, 0.3 of the second, and the
    # 0.4 left goes to the second: (0.3, 0.7, 0), 0.2 away.
    assert published_bias(p, q, np.array([1.0, 0.0, 0.0])) == pytest.approx(0.2, abs=1e-6)


def test_a_skipped_token_costs_its_rejection_probability():
    p = np.array([[0.2, 0.8], [0.2, 0.8]], np.float32)
    q = np.array([0.5, 0.5], np.float32)
    assert losses(p, [0, 1], [Judged(q, None), Judged(q, None)]) == pytest.approx([0.6, 0.0])
