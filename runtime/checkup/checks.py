"""A list of checks, one after another. In: functions that look at one thing each. Out: what they found, in order.

A check that stands on another one is skipped where that one failed or was skipped, and says so. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from schemas.errors import HunchError

_SAY_MORE = "ask again with --log-level debug, which says more"


class Outcome(Enum):
    """What came of a check; only FAILED makes a check-up fail."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found, in a line, how to mend it, and the figures behind the line, by name.

    `blocks`: what stands on this check is skipped, although it has not failed.
    """

    outcome: Outcome
    found: str
    mend: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    blocks: bool = False


def passed(found: str, **figures: float) -> Finding:
    """All is well."""
    return Finding(Outcome.PASSED, found, figures=figures)


def warned(found: str, mend: str, **figures: float) -> Finding:
    """It works, but not as it should."""
    return Finding(Outcome.WARNED, found, mend, figures)


def in_the_way(found: str, mend: str) -> Finding:
    """It works, but further checks would do harm."""
    return Finding(Outcome.WARNED, found, mend, blocks=True)


def failed(found: str, mend: str, **figures: float) -> Finding:
    """It cannot work."""
    return Finding(Outcome.FAILED, found, mend, figures)


def skipped(why: str) -> Finding:
    """There was nothing to look at."""
    return Finding(Outcome.SKIPPED, why)


def from_error(error: Exception) -> Finding:
    """A failure in the words of an error. Hunch's own say what was wrong and, after the last semicolon, the mend."""
    # In one line, whatever a library has put into it.
    found, semicolon, mend = " ".join(str(error).split()).rpartition("; ")
    if not semicolon:
        found, mend = mend, ""
    return Finding(Outcome.FAILED, found, mend or None)


@dataclass(frozen=True)
class Check:
    """One thing to look at. `needs` names earlier checks without which there is nothing to see."""

    name: str
    run: Callable[[], Finding]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What came of one check."""

    name: str
    finding: Finding


def run_checks(
    checks: Sequence[Check], begins: Callable[[str], None] = lambda _name: None
) -> Iterator[Result]:
    """Run the checks in order; yields each result as soon as it stands. `begins` is told what is looked at next.

    A check never ends the others: what it raises is its failure.
    """
    causes: dict[str, Result] = {}  # of each check that others must not stand on, the one that began it
    for check in checks:
        cause = next((causes[name] for name in check.needs if name in causes), None)
        if cause is None:
            begins(check.name)
            finding = _examine(check)
        else:
            finding = skipped(f"because of {spoken(cause.name)} ({cause.finding.outcome.value})")
        result = Result(check.name, finding)
        if finding.blocks or finding.outcome in {Outcome.FAILED, Outcome.SKIPPED}:
            causes[check.name] = cause or result
        yield result


def spoken(name: str) -> str:
    """A check's name as people read it."""
    return name.replace("_", " ")


def _examine(check: Check) -> Finding:
    try:
        return check.run()
    except HunchError as error:
        finding = from_error(error)
        return finding if finding.mend is not None else failed(finding.found, _SAY_MORE)
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        return failed(f"{error.strerror or error}{where}", "see that it is there and may be read")
    except Exception as error:
        return failed(f"the check itself is at fault: {type(error).__name__}: {error}", "please report it")
