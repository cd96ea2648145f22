"""A pair's codebook from its own frames. In: texts as token ids, drafts. Out: a codebook, and what it saves.

The dictionary is trained on whole documents as openings carry them, since openings are the largest frames by far.
Drafts gain from it nearly as much as from one of their own (docs/experiments.md). The ranks count both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import zstandard

from schemas.codebook import MAX_RANKED_IDS, Codebook
from schemas.codec import encode_draft, opening_body
from schemas.compression import BodyCodec
from schemas.frames import Draft
from schemas.profile import MAX_DICTIONARY_BYTES

# Less than this is not worth another thing that two ends must agree on.
_LEAST_GAIN = 0.02
# The demo's 16 answers came to 67 drafts about a token in doubt.
_DRAFTS_AN_OPENING = 4


@dataclass(frozen=True)
class Trained:
    """What a profile keeps of a codebook."""

    dictionary: bytes
    ranked_ids: tuple[int, ...]

    def codebook(self) -> Codebook:
        """The codebook itself."""
        return Codebook(self.dictionary, self.ranked_ids)


@dataclass(frozen=True)
class Saving:
    """Mean bytes on the held-out part without and with the codebook: of openings' bodies, of whole drafts."""

    opening: tuple[float, float]
    draft: tuple[float, float]

    @property
    def pays(self) -> bool:
        """Whether it saves enough over an answer, by and large."""
        without, used = (self.opening[index] + _DRAFTS_AN_OPENING * self.draft[index] for index in range(2))
        return used < (1 - _LEAST_GAIN) * without


def train(
    documents: Sequence[Sequence[int]], drafts: Iterable[Draft], num_ranked: int = MAX_RANKED_IDS
) -> Trained | None:
    """A codebook from whole documents and drafts; None where they are too few for a dictionary."""
    ranked = _most_frequent(documents, drafts)[:num_ranked]
    ranks = Codebook(b"", ranked)
    bodies: list[bytes | bytearray | memoryview] = [opening_body(ids, ranks) for ids in documents]
    try:
        dictionary = zstandard.train_dictionary(MAX_DICTIONARY_BYTES, bodies)
    except zstandard.ZstdError:
        return None
    return Trained(dictionary.as_bytes(), ranked)


def saving(trained: Trained, openings: Sequence[Sequence[int]], drafts: Sequence[Draft]) -> Saving:
    """What the codebook makes of openings and drafts that it was not trained on."""
    plain, book = BodyCodec(), trained.codebook()
    bodies = (plain, book)
    of_openings = [
        _mean(len(codec.pack(opening_body(ids, codec))[0]) for ids in openings) for codec in bodies
    ]
    of_drafts = [_mean(len(encode_draft(draft, codec)) for draft in drafts) for codec in bodies]
    return Saving((of_openings[0], of_openings[1]), (of_drafts[0], of_drafts[1]))


def _most_frequent(documents: Sequence[Sequence[int]], drafts: Iterable[Draft]) -> tuple[int, ...]:
    """The ids to rank, the most frequent first: by their share of all documents and their share of all drafts."""
    in_documents = Counter(token_id for ids in documents for token_id in ids)
    in_drafts: Counter[int] = Counter()
    for draft in drafts:
        in_drafts.update(draft.run_ids)
        in_drafts.update(draft.doubt.q_hat.token_ids.tolist() if draft.doubt else ())
    shares = {
        token_id: sum(counts[token_id] / max(1, counts.total()) for counts in (in_documents, in_drafts))
        for token_id in in_documents | in_drafts
    }
    return tuple(sorted(shares, key=lambda token_id: (-shares[token_id], token_id)))


def _mean(sizes: Iterable[int]) -> float:
    values = list(sizes)
    return float(np.mean(values)) if values else 0.0
