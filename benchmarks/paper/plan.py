"""What is to be measured, in which order. In: settings, the papers' fits. Out: cells. Pure.

What answers the first question stands first: accuracy and skipping, then the links, then the rest of the curves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

from benchmarks.paper import methods
from benchmarks.paper.links import LINKS, LOOPBACK, Link
from benchmarks.paper.methods import Method
from benchmarks.paper.results import Key
from benchmarks.paper.settings import PaperSettings
from deploy.demo.training.measure import MAX_CALL_TOKENS
from schemas.errors import ConfigurationError
from schemas.profile import LinearFit

GREEDY, SAMPLED = 0.0, 0.7
TEMPERATURES = (GREEDY, SAMPLED)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    calls: int
    link_calls: int
    cell_s: float
    positions: int
    # Links are compared by tokens a second, for which the beginning of an answer will do.
    link_tokens: int = MAX_CALL_TOKENS
    max_s: float | None = None

    @classmethod
    def of(cls, settings: PaperSettings) -> Size:
        """As the settings say, or as is usual."""
        usual = cls(500, 15, 60.0, 60_000)
        if settings.quick:
            usual = cls(12, 3, 5.0, 2_000, link_tokens=10, max_s=240.0)
        given = {
            name: value
            for name in ("calls", "link_calls", "cell_s", "positions")
            if (value := getattr(settings, name)) is not None
        }
        return replace(usual, **given)


@dataclass(frozen=True)
class Cell:
    """One method at one temperature over one link; it ends after `num_calls` calls or `max_s` seconds."""

    part: str
    link: Link
    temperature: float
    method: Method
    num_calls: int
    max_tokens: int = MAX_CALL_TOKENS
    max_s: float | None = None

    @property
    def key(self) -> Key:
        """Its row."""
        return Key(self.part, self.link.name, self.temperature, self.method.name)


def chosen_cells(settings: PaperSettings, fits: dict[float, LinearFit]) -> list[Cell]:
    """The cells that the settings ask for; raises ConfigurationError where that is none."""
    chosen = [
        cell
        for cell in _all_cells(Size.of(settings), fits, quick=settings.quick)
        if cell.part in settings.parts
        and (not settings.links or cell.part == "calls" or cell.link.name in settings.links)
        and (not settings.methods or cell.method.name.startswith(settings.methods))
    ]
    if not chosen:
        raise ConfigurationError(f"no method begins with {' or '.join(map(repr, settings.methods))}")
    return chosen


def _all_cells(size: Size, fits: dict[float, LinearFit], *, quick: bool) -> list[Cell]:
    """All cells; `fits` by temperature."""
    planned = []
    for temperature in TEMPERATURES:
        planned += _on_calls(size, temperature, _first(fits[temperature]))
    for temperature in () if quick else TEMPERATURES:
        planned += _on_calls(size, temperature, _curves())
    for link in LINKS:
        planned += [
            Cell("links", link, SAMPLED, method, size.link_calls, size.link_tokens, size.cell_s)
            for method in _over_links(fits[SAMPLED], quick=quick)
        ]
    for temperature in () if quick else TEMPERATURES:
        planned += _on_calls(size, temperature, _rest(fits[temperature]))
    return planned


def _on_calls(size: Size, temperature: float, chosen: tuple[Method, ...]) -> list[Cell]:
    return [Cell("calls", LOOPBACK, temperature, method, size.calls) for method in chosen]


def _first(fit: LinearFit) -> tuple[Method, ...]:
    ours = tuple(methods.at_risk(risk) for risk in methods.LINK_RISKS)
    return (methods.TARGET, methods.EDGE, *methods.papers(fit, methods.RISK_AVERSE), *ours)


def _rest(fit: LinearFit) -> tuple[Method, ...]:
    return (*methods.papers(fit, methods.RISK_PRONE), methods.EXACT, methods.HLM)


def _over_links(fit: LinearFit, *, quick: bool) -> tuple[Method, ...]:
    ours = [methods.at_risk(risk) for risk in methods.LINK_RISKS[1 if quick else 0 :]]
    kinds = (methods.RISK_AVERSE,) if quick else (methods.RISK_AVERSE, methods.RISK_PRONE)
    papers = methods.papers(fit, *kinds)
    return (methods.EDGE, methods.TARGET, methods.HLM, *papers, *ours, methods.EXACT)


def _curves() -> tuple[Method, ...]:
    """Interleaved, so that a run that is cut short has some of both."""
    ours = [methods.at_risk(risk) for risk in methods.RISKS if risk not in methods.LINK_RISKS]
    theirs = [methods.paper_at(threshold) for threshold in methods.PAPER_THRESHOLDS]
    return tuple(method for both in zip_longest(ours, theirs) for method in both if method is not None)
