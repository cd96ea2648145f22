"""The papers' cost model, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.paper.cost_model import PAPER_VOCABULARY, Times, compression, gain, token_s
from cloud_broker_worker.baselines import upload_bytes

TIMES = Times(draft_s=0.01, target_s=0.05)


def test_a_full_upload_of_the_papers_vocabulary_is_92_000_bytes_and_30_entries_are_86_25():
    assert upload_bytes(PAPER_VOCABULARY) == 92_000
    assert upload_bytes(30) == 86.25


def test_a_token_that_is_sent_costs_both_models_and_its_bits_over_the_rate():
    # 92,000 bytes are 736,000 bits: 0.736 s at 1 Mbit/s.
    assert token_s(TIMES, 1.0, 92_000, 1e6) == pytest.approx(0.01 + 0.736 + 0.05)


def test_a_skipped_token_costs_the_draft_model_alone():
    assert token_s(TIMES, 0.0, 92_000, 1e6) == 0.01


def test_the_gain_is_over_sending_every_token_in_full():
    # A quarter sent with 690 bits: 0.01 + 0.25 * (0.00069 + 0.05) = 0.0226725 s against 0.796 s.
    assert gain(TIMES, 0.25, 86.25, 92_000, 1e6) == pytest.approx(0.796 / 0.0226725)
    assert gain(TIMES, 1.0, 92_000, 92_000, 1e6) == 1.0


def test_thirty_of_32_000_entries_leave_out_all_but_a_thousandth():
    assert compression(86.25, 92_000) == pytest.approx(1 - 30 / 32_000)
