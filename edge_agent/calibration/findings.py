"""All that calibration finds out. In: samples by stretch, the pair, what was set. Out: the profile, figures. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_agent.calibration.building import Columns, Judged, as_columns, build_profile, judge
from edge_agent.calibration.codebooks import Saving, Trained, saving, train
from edge_agent.calibration.drafts import Passage, play
from edge_agent.calibration.k_rules import Prices, choose_rule
from edge_agent.calibration.replay import Sample
from edge_agent.calibration.texts import Stretch
from schemas.compression import BodyCodec
from schemas.frames import Draft
from schemas.profile import KRule, Pair, Profile
from schemas.sampling import SamplingParameters


@dataclass(frozen=True)
class Given:
    """What was set. `rule` is followed where it `is_set`, else the search for the cheapest begins with it."""

    sampling: SamplingParameters
    prices: Prices
    rule: KRule
    is_set: bool


@dataclass(frozen=True, eq=False)
class Findings:
    """The profile, and what its report shows beyond it. `saving` None: too little text for a codebook."""

    profile: Profile
    columns: Columns
    judged: Judged
    saving: Saving | None


def find_out(
    samples: Mapping[int, Sequence[Sample]], stretches: Sequence[Stretch], pair: Pair, given: Given
) -> Findings:
    """Everything, from the samples of each stretch by its number."""
    rows = [(sample, stretches[number].is_held_out) for number in samples for sample in samples[number]]
    drawn, held_out = [sample for sample, _ in rows], [out for _, out in rows]
    first = judge(as_columns(drawn, held_out, given.rule))
    passages = passages_of(samples, stretches, first.scores[first.best.name].tolist())
    trained, saved = codebook_for(passages, stretches, given)
    bodies = trained.codebook() if trained else BodyCodec()
    rules = choose_rule(passages, bodies, given.prices, given.rule, is_set=given.is_set)
    columns = as_columns(drawn, held_out, rules.chosen)
    judged = judge(columns)
    profile = build_profile(columns, judged, pair, given.sampling, rules)
    if trained is not None:
        dictionary = base64.b64encode(trained.dictionary).decode()
        profile = profile.model_copy(update={"dictionary": dictionary, "ranked_ids": trained.ranked_ids})
    return Findings(profile, columns, judged, saved)


def passages_of(
    samples: Mapping[int, Sequence[Sample]], stretches: Sequence[Stretch], scores: Sequence[float]
) -> list[Passage]:
    """The stretches with their samples; `scores` are of all positions, in the order of `samples`."""
    passages, at = [], 0
    for number, found in samples.items():
        stretch, own = stretches[number], scores[at : at + len(found)]
        passages.append(Passage(stretch.document, len(stretch.prompt_ids), found, own, stretch.is_held_out))
        at += len(found)
    return passages


def codebook_for(
    passages: Sequence[Passage], stretches: Sequence[Stretch], given: Given
) -> tuple[Trained | None, Saving | None]:
    """A codebook trained on what the fits see, if it pays on the held-out part, and what it saves there."""
    documents, openings = documents_and_openings(passages, stretches)
    trained = train(documents, drafts_of(passages, given.rule, given.prices.risk, held_out=False))
    if trained is None:
        return None, None
    saved = saving(trained, openings, drafts_of(passages, given.rule, given.prices.risk, held_out=True))
    return (trained if saved.pays else None), saved


def documents_and_openings(
    passages: Sequence[Passage], stretches: Sequence[Stretch]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Whole documents for the fits, each once; and what is held out, as agents would open sessions with it."""
    documents = {passage.document for passage in passages}
    used = [stretch for stretch in stretches if stretch.document in documents]
    # The last stretch of a document ends it.
    whole = {s.document: (*s.prompt_ids, *s.text_ids) for s in used if not s.is_held_out}
    openings = [stretch.prompt_ids for stretch in used if stretch.is_held_out and stretch.begins]
    return list(whole.values()), openings


def drafts_of(passages: Iterable[Passage], rule: KRule, risk: float, *, held_out: bool) -> list[Draft]:
    """The drafts of one part about tokens in doubt."""
    chosen = [passage for passage in passages if passage.is_held_out == held_out]
    return [draft for draft, _ in play(chosen, rule, risk).in_doubt()]
