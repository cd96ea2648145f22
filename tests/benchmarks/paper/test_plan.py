"""What is measured: every method that the page promises, over every link."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.paper.links import LINKS
from benchmarks.paper.methods import RISK_AVERSE, RISK_PRONE, papers
from benchmarks.paper.plan import TEMPERATURES, Size, chosen_cells
from benchmarks.paper.settings import PaperSettings
from schemas.errors import ConfigurationError
from schemas.profile import LinearFit

FIT = LinearFit(slope=0.8, intercept=-0.08, risk_averse=0.1, risk_prone=0.85)
FITS = dict.fromkeys(TEMPERATURES, FIT)
CORPUS = Path("dialogues.jsonl")


def test_all_methods_are_measured_over_all_links_and_on_500_calls():
    cells = chosen_cells(PaperSettings(corpus=CORPUS), FITS)
    beginnings = ("edge", "target", "hlm", "u-hlm", "cu-hlm", "ours risk", "ours exact")
    for link in LINKS:
        names = [cell.method.name for cell in cells if cell.part == "links" and cell.link == link]
        assert all(any(name.startswith(begin) for name in names) for begin in beginnings)
        assert sum(name.startswith("ours risk") for name in names) > 1
    for temperature in TEMPERATURES:
        on_calls = [cell for cell in cells if cell.part == "calls" and cell.temperature == temperature]
        assert all(cell.num_calls == 500 for cell in on_calls)
        names = [cell.method.name for cell in on_calls]
        assert all(any(name.startswith(begin) for name in names) for begin in beginnings)
    keys = [cell.key for cell in cells]
    assert len(set(keys)) == len(keys)


def test_the_papers_thresholds_are_those_of_the_pairs_line():
    methods = {method.name: method for method in papers(FIT, RISK_AVERSE, RISK_PRONE)}
    assert methods["u-hlm risk-averse"].threshold == 0.1
    assert methods["cu-hlm risk-prone"].threshold == 0.85
    assert methods["cu-hlm risk-prone"].num_entries == 30
    assert methods["u-hlm risk-prone"].num_entries is None


def test_a_line_that_falls_gives_no_thresholds_and_says_so():
    with pytest.raises(ConfigurationError, match="line falls"):
        papers(LinearFit(slope=-1.0, intercept=0.5), RISK_AVERSE)


def test_links_and_methods_can_be_chosen():
    settings = PaperSettings(corpus=CORPUS, links=("LTE",), methods=("target", "ours risk"))
    cells = chosen_cells(settings, FITS)
    assert {cell.link.name for cell in cells if cell.part == "links"} == {"LTE"}
    assert all(cell.method.name.startswith(("target", "ours risk")) for cell in cells)


def test_a_choice_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="no method begins with 'hml'"):
        chosen_cells(PaperSettings(corpus=CORPUS, methods=("hml",)), FITS)


def test_a_quick_run_is_small_and_has_an_end_unless_told_otherwise():
    quick = Size.of(PaperSettings(corpus=CORPUS, quick=True, calls=7))
    assert quick.calls == 7
    assert quick.max_s is not None
    assert quick.max_s < 300
    assert quick.link_calls < Size.of(PaperSettings(corpus=CORPUS)).link_calls
