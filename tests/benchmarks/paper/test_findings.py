"""What the page says of the marks: reached where they are, missed by how much where they are not."""

from __future__ import annotations

from benchmarks.paper.counts import Sums
from benchmarks.paper.findings import on_calls, on_links


def row(right: int, skipped: int, sent: int, loss: float = 0.0, seconds: float = 1.0) -> Sums:
    return Sums(
        answers=1000,
        right=right,
        tokens=40_000,
        skipped=skipped * 400,
        sent=sent * 400,
        free=(100 - skipped - sent) * 400,
        seconds=seconds,
        bytes_up=400_000,
        bytes_down=400_000,
        loss=loss * 40_000,
        num_losses=40_000,
    )


TARGET = row(500, 0, 100)


def said(**rows: Sums) -> str:
    return "\n".join(on_calls({"target": TARGET} | {name.replace("_", "-"): rows[name] for name in rows}))


def test_the_papers_point_is_reached_by_the_setting_that_skips_most_among_those_that_keep_enough():
    rows = {
        "target": TARGET,
        "ours risk 0.001": row(495, 70, 20),
        "ours risk 0.005": row(490, 80, 15),
        "ours risk 0.1": row(300, 95, 4),
        "u-hlm risk-averse": row(498, 75, 25),
    }
    text = "\n".join(on_calls(rows))
    assert "`ours risk 0.005`" in text
    assert "The papers' 74.8% is reached." in text
    assert "Ours skips 5.0 points more and leaves 10.0 points more without an upload." in text


def test_what_is_missed_is_said_with_its_size_and_bonus_tokens_are_not_counted_as_skipped():
    text = "\n".join(on_calls({"target": TARGET, "ours risk 0.001": row(495, 70, 20)}))
    assert "The papers' 74.8% is missed by 4.8 points, but reached if bonus tokens count" in text
    text = "\n".join(on_calls({"target": TARGET, "ours risk 0.001": row(495, 70, 28)}))
    assert "The papers' 74.8% is missed by 4.8 points." in text


def test_where_nothing_keeps_enough_it_says_so():
    assert "**Not reached.**" in "\n".join(on_calls({"target": TARGET, "ours risk 0.1": row(100, 99, 1)}))


def test_theirs_may_be_ahead():
    rows = {"target": TARGET, "ours exact": row(500, 0, 55), "cu-hlm risk-prone": row(490, 80, 20)}
    text = "\n".join(on_calls(rows))
    assert "Ours skips 80.0 points less and leaves 35.0 points less without an upload." in text


def test_the_default_risk_is_held_against_99_percent_and_the_reason_follows_from_the_length():
    reached = "\n".join(on_calls({"target": TARGET, "ours risk 0.02": row(496, 80, 15)}))
    assert "The 99% that is asked of it is reached." in reached
    missed = "\n".join(on_calls({"target": TARGET, "ours risk 0.02": row(245, 80, 15, loss=0.02)}))
    assert "missed by 50.0 points" in missed
    # 40 tokens at 0.02 are 0.8 rejected tokens; exp(-0.8) = 45 %; -ln(0.99) / 40 = 0.00025.
    assert "0.80 tokens a call" in missed
    assert "45% is kept" in missed
    assert "0.00025 a token" in missed


def test_a_target_without_a_right_call_leaves_nothing_to_say():
    assert on_calls({"target": row(0, 0, 100)}) == [
        "The target model got no call right: there is nothing to keep."
    ]


def test_speed_on_a_link_is_told_against_all_others_the_faster_ones_too_but_not_against_worse_answers():
    rows = {
        "ours risk 0.02": row(500, 80, 15, loss=0.02, seconds=2.0),
        "hlm": row(500, 0, 100, seconds=20.0),
        "cu-hlm risk-averse": row(500, 50, 50, loss=0.01, seconds=5.0),
        "u-hlm risk-averse": row(500, 50, 50, loss=0.01, seconds=8.0),
        "u-hlm risk-prone": row(500, 97, 3, loss=0.04, seconds=1.5),
        "target": row(500, 0, 100, seconds=1.0),
    }
    (line,) = on_links({"LTE": rows, "LAN": {}})
    assert line.startswith("LTE: at risk 0.02 2e+04 tokens a second")
    assert "10 times full upload" in line
    assert "2.5 times the papers' fastest that diverges no more (cu-hlm risk-averse)" in line
    assert "0.5 times the target streamed" in line
    assert "none of the papers'" not in line
    rows["ours risk 0.02"] = row(500, 80, 15, loss=0.001, seconds=2.0)
    (line,) = on_links({"LTE": rows})
    assert "10 times full upload, 0.5 times the target streamed (none of the papers'" in line


def test_before_ours_is_measured_nothing_is_said_of_it():
    assert len(on_calls({"target": TARGET, "hlm": TARGET})) == 1
