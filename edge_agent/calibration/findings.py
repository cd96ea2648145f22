"""All that calibration finds out. In: samples by stretch, the pair, what was set. Out: the profile, figures. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_agent.calibration.building import Columns, Judged, as_columns, build_profile, judge
from edge_agent.calibration.codebooks import Saving, Trained, saving, train
from edge_agent.calibration.drafts import Passage, drafts_over
from edge_agent.calibration.k_rules import choose_rule
from edge_agent.calibration.replay import Sample
from edge_agent.calibration.texts import Stretch
from edge_agent.truncation import truncation
from schemas.compression import BodyCodec
from schemas.frames import Draft
from schemas.profile import KRule, Pair, Profile
from schemas.sampling import SamplingParameters


@dataclass(frozen=True)
class Given:
    """What was set: the sampling, the risk that decides which tokens are in doubt, how to choose among rules.

    `rule` is followed as it is where it `is_set`, else it is where the search begins.
    """

    sampling: SamplingParameters
    risk: float
    rule: KRule
    is_set: bool
    rejection_bytes: float
    max_left_out: float


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
    # The rule decides what is drawn, so what is in doubt, and that in turn which rule is best: one round will do.
    first = judge(as_columns(drawn, held_out, given.rule))
    passages = passages_of(samples, stretches, first.in_doubt(given.risk).tolist())
    trained, saved = codebook_for(passages, stretches, given.rule)
    bodies = trained.codebook() if trained else BodyCodec()
    rules = choose_rule(
        passages,
        bodies,
        given.rule,
        is_set=given.is_set,
        rejection_bytes=given.rejection_bytes,
        max_left_out=given.max_left_out,
    )
    columns = as_columns(drawn, held_out, rules.chosen)
    judged = judge(columns)
    profile = build_profile(columns, judged, pair, given.sampling, rules)
    if trained is not None:
        dictionary = base64.b64encode(trained.dictionary).decode()
        profile = profile.model_copy(update={"dictionary": dictionary, "ranked_ids": trained.ranked_ids})
    return Findings(profile, columns, judged, saved)


def passages_of(
    samples: Mapping[int, Sequence[Sample]], stretches: Sequence[Stretch], in_doubt: Sequence[bool]
) -> list[Passage]:
    """The stretches with their samples; `in_doubt` is over all positions, in the order of `samples`."""
    passages, at = [], 0
    for number, found in samples.items():
        stretch = stretches[number]
        doubts = in_doubt[at : at + len(found)]
        passages.append(
            Passage(stretch.document, len(stretch.prompt_ids), found, doubts, stretch.is_held_out)
        )
        at += len(found)
    return passages


def codebook_for(
    passages: Sequence[Passage], stretches: Sequence[Stretch], rule: KRule
) -> tuple[Trained | None, Saving | None]:
    """A codebook trained on what the fits see, if it pays on the held-out part, and what it saves there."""
    documents = {passage.document for passage in passages}
    used = [stretch for stretch in stretches if stretch.document in documents]
    # The last stretch of a document ends it, so that each document is there once.
    whole = {
        stretch.document: (*stretch.prompt_ids, *stretch.text_ids)
        for stretch in used
        if not stretch.is_held_out
    }
    openings = [stretch.prompt_ids for stretch in used if stretch.is_held_out and stretch.begins]
    trained = train(list(whole.values()), _drafts(passages, rule, held_out=False))
    if trained is None:
        return None, None
    saved = saving(trained, openings, _drafts(passages, rule, held_out=True))
    return (trained if saved.pays else None), saved


def _drafts(passages: Iterable[Passage], rule: KRule, *, held_out: bool) -> list[Draft]:
    chosen = (passage for passage in passages if passage.is_held_out == held_out)
    return [sent.draft for sent in drafts_over(chosen, truncation(rule))]
