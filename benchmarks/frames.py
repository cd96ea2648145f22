"""Bytes on the wire, by encoding. In: samples of a calibration, its texts. Out: tables of drafts and openings.

Everything is trained on what the calibration's fits see and measured on what is held out from them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import zstandard
from rich.console import Console
from rich.table import Table

from edge_agent.calibration.building import as_columns, judge
from edge_agent.calibration.codebooks import train
from edge_agent.calibration.drafts import Passage
from edge_agent.calibration.findings import documents_and_openings, drafts_of, passages_of
from edge_agent.calibration.replay import Sample
from edge_agent.calibration.samples import SampleFile
from edge_agent.calibration.texts import Stretch, load_stretches
from runtime.llama import Model
from schemas.codebook import Codebook
from schemas.codec import draft_body, encode_draft, opening_body
from schemas.compression import BodyCodec
from schemas.frames import Draft
from schemas.profile import MAX_DICTIONARY_BYTES, KRule

_RULES = (
    KRule(name="cost", k=16, least_share=0.08),
    KRule(name="cost", k=16, least_share=0.02),
    KRule(name="fixed", k=16),
    KRule(name="fixed", k=32),
)
# What an unseen value counts beside those seen once.
_UNSEEN = 0.1


class _Raw(BodyCodec):
    """Never compresses."""

    def pack(self, body: bytes) -> tuple[bytes, bool]:
        return body, False


class _RawByRank(_Raw, Codebook):
    """Ranks alone."""


class _Zstd(BodyCodec):
    """Always compresses, also where that makes a body longer."""

    def pack(self, body: bytes) -> tuple[bytes, bool]:
        return self._compressor.compress(body), True


def run(argv: list[str]) -> int:
    """`python -m benchmarks frames --samples FILE --text FILE --model FILE`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks frames", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="samples that a calibration has kept")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="the texts it was given")
    parser.add_argument("--model", type=Path, required=True, help="its draft model")
    parser.add_argument("--risk", type=float, default=0.02, help="decides which tokens are in doubt")
    parser.add_argument("--vocabulary", type=int, help="simulate one of that size: ids spread over it evenly")
    given = parser.parse_args(argv)
    subject = json.loads(given.samples.open(encoding="utf-8").readline())
    file = SampleFile(given.samples, subject)
    file.close()
    model = Model(given.model)
    num_tokens, n_ctx = model.num_tokens, model.context_length
    stretches = load_stretches(model, given.text, n_ctx)[: max(file.by_stretch) + 1]
    model.close()
    passages = _passages(file.by_stretch, stretches)
    if given.vocabulary is not None:
        passages, stretches = _spread(passages, stretches, num_tokens, given.vocabulary)
        num_tokens = given.vocabulary
    show(passages, stretches, num_tokens, given.risk, Console())
    return 0


def show(
    passages: Sequence[Passage], stretches: Sequence[Stretch], num_tokens: int, risk: float, console: Console
) -> None:
    """Print both tables."""
    documents, openings = documents_and_openings(passages, stretches)
    drafts = Table(
        title="A draft about a token in doubt, whole frame: median, mean bytes", title_justify="left"
    )
    drafts.add_column("")
    columns: list[dict[str, str]] = []
    for rule in _RULES:
        seen, held_out = (drafts_of(passages, rule, risk, held_out=part) for part in (False, True))
        mean_k = float(np.mean([draft.doubt.q_hat.k for draft in held_out if draft.doubt]))
        drafts.add_column(f"{rule.name} {rule.least_share or rule.k:g} (k {mean_k:.1f})", justify="right")
        columns.append(_draft_column(documents, seen, held_out))
    for name in columns[0]:
        drafts.add_row(name, *(column[name] for column in columns))
    console.print(drafts)
    title = (
        f"The prompt in an opening, {np.mean([len(ids) for ids in openings]):.0f} tokens: median, mean bytes"
    )
    table = Table("", "", title=title, title_justify="left")
    seen = drafts_of(passages, _RULES[1], risk, held_out=False)
    width = math.ceil(math.log2(num_tokens))
    for name, codec in _codecs(documents, seen).items():
        table.add_row(name, _figures(len(codec.pack(opening_body(ids, codec))[0]) for ids in openings))
    table.add_row(f"{width} bits an id", _figures(1 + math.ceil(len(ids) * width / 8) for ids in openings))
    cost_of = _bits(token_id for ids in documents for token_id in ids)
    table.add_row("entropy of single ids", _figures(1 + sum(map(cost_of, ids)) / 8 for ids in openings))
    console.print(table)


def _codecs(documents: Sequence[Sequence[int]], drafts: Sequence[Draft]) -> dict[str, BodyCodec]:
    by_id, by_rank = train(documents, drafts, 0), train(documents, drafts)
    assert by_id is not None  # a calibration's text is never that short
    assert by_rank is not None
    ranks = by_rank.codebook()
    of_drafts = zstandard.train_dictionary(
        MAX_DICTIONARY_BYTES, [draft_body(draft, ranks) for draft in drafts]
    )
    return {
        "raw columns": _Raw(),
        "zstd, always": _Zstd(),
        "zstd or raw": BodyCodec(),
        "zstd with a dictionary, or raw": by_id.codebook(),
        "ranks, raw": _RawByRank(by_rank.dictionary, by_rank.ranked_ids),
        "ranks, a dictionary of drafts": Codebook(of_drafts.as_bytes(), by_rank.ranked_ids),
        "ranks, a dictionary of texts: the codebook": ranks,
    }


def _draft_column(
    documents: Sequence[Sequence[int]], seen: Sequence[Draft], held_out: Sequence[Draft]
) -> dict[str, str]:
    codecs = _codecs(documents, seen)
    column = {
        name: _figures(len(encode_draft(draft, codec)) for draft in held_out)
        for name, codec in codecs.items()
    }
    return column | {"entropy of the integers": _figures(_entropy_bytes(seen, held_out))}


def _entropy_bytes(seen: Sequence[Draft], held_out: Sequence[Draft]) -> list[float]:
    """Header as it is, and each column by its own distribution on what was seen, the ids of `q_hat` as a set.

    The draft token's index costs what drawing it by weight does.
    """
    doubts = [draft.doubt for draft in seen if draft.doubt is not None]
    ids = _bits(token_id for doubt in doubts for token_id in doubt.q_hat.token_ids.tolist())
    weights = _bits(weight for doubt in doubts for weight in doubt.q_hat.weights[:-1].tolist())
    ks, lengths = _bits(doubt.q_hat.k for doubt in doubts), _bits(len(draft.run_ids) for draft in seen)
    run_ids = _bits(token_id for draft in seen for token_id in draft.run_ids)
    run_weights = _bits(weight for draft in seen for weight in draft.run_weights)
    raw, sizes = _Raw(), []
    for draft in held_out:
        assert draft.doubt is not None
        q_hat = draft.doubt.q_hat
        bits = ks(q_hat.k) + lengths(len(draft.run_ids)) - math.log2(draft.doubt.weight / 256)
        bits += sum(map(ids, q_hat.token_ids.tolist())) - math.log2(math.factorial(q_hat.k))
        bits += sum(map(weights, q_hat.weights[:-1].tolist()))
        bits += sum(map(run_ids, draft.run_ids)) + sum(map(run_weights, draft.run_weights))
        header_bytes = len(encode_draft(draft, raw)) - len(draft_body(draft, raw))
        sizes.append(header_bytes + bits / 8)
    return sizes


def _bits(values: Iterable[int]) -> Callable[[int], float]:
    """What a value costs by the distribution of those given, in bits."""
    counts = Counter(values)
    total = counts.total() + _UNSEEN * (len(counts) + 1)
    return lambda value: -math.log2((counts[value] + _UNSEEN) / total)


def _figures(sizes: Iterable[float]) -> str:
    values = list(sizes)
    return f"{np.median(values):.0f}, {np.mean(values):.1f}"


def _passages(by_stretch: dict[int, list[Sample]], stretches: Sequence[Stretch]) -> list[Passage]:
    """The samples, judged by the best estimator as a calibration would."""
    drawn = [sample for got in by_stretch.values() for sample in got]
    held_out = [stretches[number].is_held_out for number, got in by_stretch.items() for _ in got]
    judged = judge(as_columns(drawn, held_out, _RULES[1]))
    return passages_of(by_stretch, stretches, judged.scores[judged.best.name].tolist())


def _spread(
    passages: Sequence[Passage], stretches: Sequence[Stretch], num_tokens: int, size: int
) -> tuple[list[Passage], list[Stretch]]:
    """The same text in a larger vocabulary: ids keep their order, as merges do, and spread by a power law.

    Frequent tokens have low ids in either, as the first merges are those of frequent pairs.
    """
    power = math.log(size - 1) / math.log(num_tokens - 1)

    def place(ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(round(token_id**power) for token_id in ids)

    def moved(sample: Sample) -> Sample:
        (token_id,) = place([sample.token_id])
        return replace(sample, token_id=token_id, token_ids=place(sample.token_ids))

    return (
        [replace(passage, samples=[moved(sample) for sample in passage.samples]) for passage in passages],
        [replace(s, prompt_ids=place(s.prompt_ids), text_ids=place(s.text_ids)) for s in stretches],
    )
