"""The largest opening that a session may need. In: a vocabulary, a context's length. Out: its frame."""

from __future__ import annotations

import numpy as np

from schemas.codec import encode_open
from schemas.compression import BodyCodec
from schemas.frames import MAX_PROMPT, MAX_SEED, MAX_SESSION, Open
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Vocabulary


def largest_opening(vocabulary: Vocabulary, n_ctx: int) -> bytes:
    """An opening with a prompt that fills the context, of ids drawn at random, which nothing compresses."""
    rng = np.random.default_rng(0)
    prompt_ids = tuple(rng.integers(0, vocabulary.num_tokens, min(n_ctx, MAX_PROMPT)).tolist())
    opening = Open(
        session=MAX_SESSION,
        vocabulary=vocabulary.fingerprint(),
        sampling=SamplingParameters(),
        seed=MAX_SEED,
        max_length=n_ctx,
        prompt_ids=prompt_ids,
    )
    return encode_open(opening, BodyCodec())
