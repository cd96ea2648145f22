"""The benchmark from end to end, small: a real broker, both models, one link."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.paper.measure import Bench
from benchmarks.paper.run import main, run
from benchmarks.paper.settings import PaperSettings
from deploy.demo.prompts import load_prompts

pytestmark = pytest.mark.end_to_end

CITIES = ("Oakland", "Napa", "San Jose", "Gilroy", "Berkeley", "Fremont", "Petaluma", "Novato")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Made-up dialogues in the form of the models' own, each with a call; every second one calibrates."""
    openings = [prompt.turns[0].content for prompt in load_prompts()]
    file: Path = tmp_path_factory.mktemp("corpus") / "dialogues.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number, city in enumerate(CITIES * 2):
            call = {"call": "ReserveRestaurant", "city": city, "date": "2019-03-08", "time": f"{number}:30"}
            dialogue = [
                ["user", openings[number % len(openings)]],
                ["assistant", f"Shall I book it in {city} for {number}:30 on March 8th?"],
                ["user", "Yes, please."],
                ["call", json.dumps(call)],
            ]
            lines.write(json.dumps(dialogue) + "\n")
    return file


@pytest.fixture(scope="module")
def settings(corpus, tmp_path_factory) -> PaperSettings:
    folder = tmp_path_factory.mktemp("bench")
    return PaperSettings(
        corpus=corpus,
        output=folder / "docs",
        work=folder / "work",
        calls=2,
        link_calls=1,
        positions=300,
        links=("LAN",),
        methods=("target", "edge", "cu-hlm risk-averse", "hlm", "ours risk 0.02"),
    )


@pytest.fixture(scope="module")
def page(settings) -> str:
    """The page of one run."""
    return run(settings, Console(quiet=True)).read_text(encoding="utf-8")


def rows(settings) -> dict[tuple[str, str, str], dict[str, str]]:
    with (settings.output / "benchmarks" / "paper.csv").open(encoding="utf-8", newline="") as lines:
        found = [(row["part"], row["temperature"], row["method"]) for row in csv.DictReader(lines)]
        assert len(set(found)) == len(found)
        lines.seek(0)
        return dict(zip(found, csv.DictReader(lines), strict=True))


def test_each_method_has_its_row_with_what_it_cost(page, settings):
    found = rows(settings)
    assert len(found) == 5 * 3  # two temperatures of calls, and one link
    for (part, _, method), row in found.items():
        tokens = int(row["tokens"])
        assert tokens > 0, method
        assert int(row["skipped"]) + int(row["sent"]) + int(row["free"]) + int(row["unverified"]) == tokens
        assert float(row["seconds"]) > 0
        assert int(row["answers"]) == (1 if part == "links" else 2)


def test_the_wire_carries_what_the_methods_say(page, settings):
    for (part, temperature, method), row in rows(settings).items():
        sent, tokens = int(row["sent"]), int(row["tokens"])
        if method == "hlm":  # a whole vocabulary a token, in the payload and in all
            assert sent == tokens
            assert int(row["payload_up"]) >= 11_776 * sent
            assert int(row["bytes_up"]) > int(row["payload_up"])
            assert int(row["target_passes"]) == tokens
        elif method.startswith("cu-hlm"):  # 87 bytes and a few for ids an upload
            assert 87 * sent < int(row["payload_up"]) < 100 * sent + 3 * tokens
            assert int(row["target_passes"]) == sent
        elif method == "edge":
            assert int(row["bytes_up"]) == int(row["target_tokens"]) == 0
        elif method == "target":
            assert int(row["target_passes"]) == int(row["target_tokens"]) == tokens
        else:
            assert (
                sent < int(row["target_passes"]) <= tokens + 2 * int(row["answers"])
            )  # runs go out for audit alone
            assert int(row["target_tokens"]) >= sent
        assert (part, temperature) in {("calls", "0.0"), ("calls", "0.7"), ("links", "0.7")}


def test_greedy_and_verified_throughout_is_the_target_itself(page, settings):
    """Of both the papers' way and the target alone: at temperature 0 a recovered token is the target's choice."""
    found = rows(settings)
    target, hlm = found["calls", "0.0", "target"], found["calls", "0.0", "hlm"]
    assert (hlm["tokens"], hlm["right"]) == (target["tokens"], target["right"])
    assert float(hlm["loss"]) == float(target["loss"]) == 0


def test_the_page_shows_every_method_and_the_command_but_no_folder(page, settings):
    for name in (
        *settings.methods,
        "LAN: 1 ms",
        "cost model",
        "kept-0.7.svg" if "kept-0.7" in page else "greedy",
    ):
        assert name in page
    assert "make bench-paper CORPUS=dialogues.jsonl" in page
    assert str(settings.corpus.parent) not in page


def test_a_second_run_measures_nothing_again(page, settings, monkeypatch):
    monkeypatch.setattr(Bench, "measure", lambda *_: pytest.fail("measured again"))
    before = rows(settings)
    assert run(settings, Console(quiet=True)).read_text(encoding="utf-8") == page
    assert rows(settings) == before


def test_wrong_arguments_get_one_line(capsys, tmp_path):
    assert main(["--corpus", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    assert main([]) == 2
    assert "corpus" in capsys.readouterr().err
