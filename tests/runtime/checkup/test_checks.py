"""How checks follow one another, whatever they look at."""

from __future__ import annotations

import pytest

from runtime.checkup.checks import (
    Check,
    Outcome,
    failed,
    from_error,
    in_the_way,
    passed,
    run_checks,
    skipped,
    warned,
)
from schemas.errors import ConfigurationError, ModelError


def outcomes(*checks: Check) -> dict[str, Outcome]:
    return {result.name: result.finding.outcome for result in run_checks(checks)}


def test_what_stands_on_a_failed_check_is_skipped_and_names_where_it_began():
    results = list(
        run_checks(
            [
                Check("port", lambda: failed("nothing listens", "start it")),
                Check("packet_size", lambda: passed("never reached"), ("port",)),
                Check("echo", lambda: passed("never reached"), ("packet_size",)),
                Check("clock", lambda: passed("right")),
            ]
        )
    )
    found = [(result.finding.outcome, result.finding.found) for result in results[1:]]
    assert found == [
        (Outcome.SKIPPED, "because of port (failed)"),
        (Outcome.SKIPPED, "because of port (failed)"),
        (Outcome.PASSED, "right"),
    ]


def test_a_warning_stands_in_nobodys_way_unless_it_says_so():
    assert outcomes(
        Check("memory", lambda: warned("tight", "less")),
        Check("context", lambda: passed("made"), ("memory",)),
        Check("alone", lambda: in_the_way("it runs", "stop it")),
        Check("login", lambda: passed("never reached"), ("alone",)),
    ) == {
        "memory": Outcome.WARNED,
        "context": Outcome.PASSED,
        "alone": Outcome.WARNED,
        "login": Outcome.SKIPPED,
    }


def test_a_check_that_finds_nothing_to_look_at_blocks_what_stands_on_it():
    assert (
        outcomes(
            Check("worker", lambda: skipped("nobody is asked")),
            Check("round_trip", lambda: passed("never reached"), ("worker",)),
        )["round_trip"]
        is Outcome.SKIPPED
    )


@pytest.mark.parametrize(
    ("error", "found", "mend"),
    [
        (ConfigurationError("m.gguf does not exist; give a path"), "m.gguf does not exist", "give a path"),
        (
            ModelError("it failed:\n - here\n - there"),
            "it failed: - here - there",
            "ask again with --log-level debug, which says more",
        ),
        (
            FileNotFoundError(2, "No such file", "a.pem"),
            "No such file: a.pem",
            "see that it is there and may be read",
        ),
        (
            ZeroDivisionError("by zero"),
            "the check itself is at fault: ZeroDivisionError: by zero",
            "please report it",
        ),
    ],
)
def test_what_a_check_raises_is_its_failure_in_one_line_and_ends_no_other(error, found, mend):
    def fail():
        raise error

    first, second = run_checks([Check("one", fail), Check("two", lambda: passed("fine"))])
    assert (first.finding.outcome, first.finding.found, first.finding.mend) == (Outcome.FAILED, found, mend)
    assert second.finding.outcome is Outcome.PASSED


def test_a_result_comes_before_the_next_check_begins():
    begun: list[str] = []
    results = run_checks([Check(name, lambda: passed("fine")) for name in ("one", "two")], begun.append)
    assert next(results).name == "one"
    assert begun == ["one"]
    assert next(results).name == "two"
    assert begun == ["one", "two"]


def test_an_error_is_parted_at_its_last_semicolon():
    finding = from_error(ConfigurationError("a; b; do c"))
    assert (finding.found, finding.mend) == ("a; b", "do c")
