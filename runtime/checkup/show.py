"""A check-up on the screen or as JSON. In: checks. Out: lines, or one document; an error if one failed."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.text import Text

from runtime.checkup.checks import Check, Outcome, Result, run_checks, spoken
from schemas.errors import HunchError

_SIGNS = {Outcome.PASSED: "✔", Outcome.WARNED: "!", Outcome.FAILED: "✘", Outcome.SKIPPED: "-"}
_STYLES = {
    Outcome.PASSED: "green",
    Outcome.WARNED: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.SKIPPED: "dim",
}
# "✔ passed  " and the longest name of a check, "packet size", with two blanks behind it.
_OUTCOME_WIDTH, _NAME_WIDTH = 10, 13


class CheckupFailed(HunchError):
    """At least one check has failed; `names` are theirs."""

    def __init__(self, names: Sequence[str], num_checks: int) -> None:
        listed = ", ".join(spoken(name) for name in names)
        super().__init__(f"{len(names)} of {num_checks} checks failed: {listed}")
        self.names = tuple(names)


def carry_out(checks: Sequence[Check], *, prog: str, name: str, as_json: bool) -> None:
    """Run the checks and show what they find. Raises CheckupFailed where one fails."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✔ has the words
    console = Console(highlight=False, soft_wrap=True)
    results: list[Result] = []
    if as_json:
        results += run_checks(checks)
        print_document(results, prog=prog, name=name)
    else:
        with console.status("") as status:  # on a terminal it says what is looked at; elsewhere nothing
            for result in run_checks(checks, lambda check: status.update(f"{spoken(check)} …")):
                results.append(result)
                for line in lines(result):
                    console.print(line)
        console.print(summary(results))
    at_fault = [result.name for result in results if result.finding.outcome is Outcome.FAILED]
    if at_fault:
        raise CheckupFailed(at_fault, len(results))


def lines(result: Result) -> Iterator[Text]:
    """What was found and, below it, the mend. The words say it all: signs and colours are beside them."""
    finding = result.finding
    outcome = f"{_SIGNS[finding.outcome]} {finding.outcome.value}"
    yield Text.assemble(
        (f"{outcome:<{_OUTCOME_WIDTH}}", _STYLES[finding.outcome]),
        (f"{spoken(result.name):<{_NAME_WIDTH}}", "bold"),
        finding.found,
    )
    if finding.mend is not None:
        yield Text(" " * (_OUTCOME_WIDTH + _NAME_WIDTH) + f"→ {finding.mend}", "cyan")


def summary(results: Iterable[Result]) -> str:
    """How many came out how."""
    counts = Counter(result.finding.outcome for result in results)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])


def print_document(results: Sequence[Result], *, prog: str, name: str | None) -> None:
    """The whole check-up as JSON on standard output; `name` is None where the settings could not be read."""
    sys.stdout.write(json.dumps(document(results, prog=prog, name=name), indent=2) + "\n")


def document(results: Sequence[Result], *, prog: str, name: str | None) -> dict[str, Any]:
    """The whole check-up for machines (docs/doctor.md)."""
    outcomes = {result.finding.outcome for result in results}
    worst = next(each for each in (Outcome.FAILED, Outcome.WARNED, Outcome.PASSED) if each in outcomes)
    return {
        "program": prog,
        "version": version("hunch"),
        "name": name,
        "outcome": worst.value,
        "checks": [
            {
                "name": result.name,
                "outcome": result.finding.outcome.value,
                "found": result.finding.found,
                "mend": result.finding.mend,
                "figures": result.finding.figures,
            }
            for result in results
        ],
    }
