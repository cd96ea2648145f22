"""Results on disk: what was measured is there again after an interruption, and nothing else is."""

from __future__ import annotations

import pytest

from benchmarks.paper.counts import Sums
from benchmarks.paper.results import Key, Results
from schemas.errors import ConfigurationError

KEY = Key("calls", "loopback", 0.7, "ours risk 0.02")
SUMS = Sums(
    answers=4, right=3, tokens=100, skipped=80, sent=12, free=8, seconds=1.5, loss=0.25, num_losses=100
)


def test_a_row_comes_back(tmp_path):
    file = tmp_path / "folder" / "r.csv"
    Results(file, "abc").add(KEY, SUMS)
    assert Results(file, "abc").rows == {KEY: SUMS}


def test_rows_of_another_subject_are_left_out(tmp_path):
    file = tmp_path / "r.csv"
    Results(file, "abc").add(KEY, SUMS)
    assert Results(file, "other").rows == {}


def test_another_kind_of_file_is_refused_by_name(tmp_path):
    file = tmp_path / "r.csv"
    file.write_text("subject,part\nabc,calls\n")
    with pytest.raises(ConfigurationError, match=r"r\.csv"):
        Results(file, "abc")


def test_the_figures_follow_from_the_sums():
    assert SUMS.accuracy == 0.75
    assert SUMS.per_token("skipped") == 0.8
    assert SUMS.divergence == 0.0025
    assert Sums().divergence is None


def test_a_table_has_its_order_whenever_its_rows_were_measured(tmp_path):
    results = Results(tmp_path / "r.csv", "abc")
    in_order = [
        "target",
        "edge",
        "hlm",
        "cu-hlm threshold 0.1",
        "ours risk 0.02",
        "ours risk 0.1",
        "ours exact",
    ]
    for method in reversed(in_order):
        results.add(Key("calls", "loopback", 0.7, method), SUMS)
    results.add(Key("links", "LTE", 0.7, "u-hlm risk-averse"), SUMS)
    assert list(results.of("calls", "loopback", 0.7)) == in_order
