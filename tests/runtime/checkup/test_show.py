"""What a check-up looks like: lines for people, a document for machines, an error where something failed."""

from __future__ import annotations

import io
import json
import sys

import pytest

from runtime.checkup.checks import Check, failed, passed, skipped, warned
from runtime.checkup.show import CheckupFailed, carry_out

CHECKS = [
    Check("model", lambda: passed("[small] draft", bytes=7)),
    Check("packet_size", lambda: warned("tight", "raise it")),
    Check("worker", lambda: skipped("nobody is asked")),
]
BROKEN = [*CHECKS, Check("login", lambda: failed("refused", "check the password"))]


def test_each_check_is_a_line_with_the_mend_below_and_the_words_need_no_colour(capsys):
    carry_out(CHECKS, prog="edge-agent doctor", name="pi", as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "✔ passed  model        [small] draft",
        "! warned  packet size  tight",
        "                       → raise it",
        "- skipped worker       nobody is asked",
        "1 passed, 1 warned, 1 skipped",
    ]


def test_a_failed_check_makes_the_check_up_fail_by_name(capsys):
    with pytest.raises(CheckupFailed, match=r"^1 of 4 checks failed: login$") as raised:
        carry_out(BROKEN, prog="edge-agent doctor", name="pi", as_json=False)
    assert raised.value.names == ("login",)
    assert "✘ failed  login        refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("checks", "worst"), [(CHECKS[:1], "passed"), (CHECKS, "warned"), (BROKEN, "failed")]
)
def test_the_document_holds_everything_and_the_worst_outcome(capsys, checks, worst):
    try:
        carry_out(checks, prog="edge-agent doctor", name="pi", as_json=True)
    except CheckupFailed:
        assert worst == "failed"
    told = json.loads(capsys.readouterr().out)
    assert (told["program"], told["name"], told["outcome"]) == ("edge-agent doctor", "pi", worst)
    assert [check["name"] for check in told["checks"]] == [check.name for check in checks]
    assert told["checks"][0] == {
        "name": "model",
        "outcome": "passed",
        "found": "[small] draft",
        "mend": None,
        "figures": {"bytes": 7},
    }


def test_a_terminal_that_knows_ascii_alone_gets_the_words(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    carry_out(CHECKS, prog="edge-agent doctor", name="pi", as_json=False)
    assert raw.getvalue().decode("ascii").startswith("? passed  model ")
