"""What is compared. In: what the papers' fit gave on this pair. Out: methods by name. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from schemas.errors import ConfigurationError
from schemas.profile import LinearFit

# CU-HLM's offline rule gives one k for its pair (arXiv:2505.11788).
PAPER_K = 30
RISK_AVERSE, RISK_PRONE = "risk-averse", "risk-prone"
RISKS = (0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.14)
# Over the links: the default risk, what keeps the paper's accuracy here, and what skips far more.
LINK_RISKS = (0.001, 0.02, 0.1)
# Their estimator knows no other values than twentieths.
PAPER_THRESHOLDS = (0.1, 0.05, 0.15, 0.3, 0.0)


class Kind(Enum):
    """Who answers: the papers' protocol, or Hunch's agent."""

    PAPER = "paper"
    HUNCH = "hunch"


@dataclass(frozen=True)
class Method:
    """One way to answer.

    PAPER: `threshold` None asks about every token, `num_entries` None uploads the whole vocabulary; `streams`
    has the target answer alone. HUNCH: `edge` never asks, `risk` 0 always does.
    """

    name: str
    kind: Kind
    threshold: float | None = None
    num_entries: int | None = None
    streams: bool = False
    risk: float | None = None
    edge: bool = False


EDGE = Method("edge", Kind.HUNCH, edge=True)
TARGET = Method("target", Kind.PAPER, streams=True)
HLM = Method("hlm", Kind.PAPER)
EXACT = Method("ours exact", Kind.HUNCH, risk=0.0)


def papers(fit: LinearFit, *kinds: str) -> tuple[Method, ...]:
    """The papers' methods that skip, at thresholds of these kinds, as their line over this pair gives them.

    Raises ConfigurationError where it gives none.
    """
    thresholds = {RISK_AVERSE: fit.risk_averse, RISK_PRONE: fit.risk_prone}
    methods = []
    for kind in kinds:
        threshold = thresholds[kind]
        if threshold is None:
            raise ConfigurationError(
                "the papers' line falls on this pair: no threshold follows; calibrate on more dialogues"
            )
        methods += [
            Method(f"u-hlm {kind}", Kind.PAPER, threshold),
            Method(f"cu-hlm {kind}", Kind.PAPER, threshold, PAPER_K),
        ]
    return tuple(methods)


def paper_at(threshold: float) -> Method:
    """CU-HLM at a threshold of one's own, for the curve."""
    return Method(f"cu-hlm threshold {threshold:g}", Kind.PAPER, threshold, PAPER_K)


def at_risk(risk: float) -> Method:
    """Ours, as users have it."""
    return Method(f"ours risk {risk:g}", Kind.HUNCH, risk=risk)


# As a table shows them, by how their names begin.
_ORDER = (
    "target",
    "edge",
    "hlm",
    "u-hlm risk",
    "cu-hlm risk",
    "cu-hlm threshold",
    "ours risk",
    "ours exact",
)


def rank(name: str) -> tuple[int, float, str]:
    """Where a method stands in a table, whenever it was measured; within a kind by its number."""
    family = next((index for index, begin in enumerate(_ORDER) if name.startswith(begin)), len(_ORDER))
    last = name.rsplit(maxsplit=1)[-1]
    return family, float(last) if last[0].isdigit() else 0.0, name
