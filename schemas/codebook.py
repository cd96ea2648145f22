"""The codebook of a pair: what its bodies are made of most often. In: a dictionary, ids. Out: shorter bodies.

Both ends hold the same codebook, from the pair's profile, and a session uses it where its opening names it. It is
two things: a zstd dictionary, and the most frequent token ids, which travel as their rank. A rank is small where
an id is not, so it takes a byte instead of two or three, and the gaps between ranks are small too.

Ranks are ids in another order, none left out: those listed first, then all others, ascending. With the list
[7, 2] the ids 7, 2, 0, 1, 3, 4, 5, 6, 8, … have the ranks 0, 1, 2, ….
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from schemas.compression import BodyCodec

MARK_BYTES = 4
MAX_RANKED_IDS = 1024


class Codebook(BodyCodec):
    """A BodyCodec with a pair's dictionary and ranks. Raises BadCompression for a dictionary that is none.

    `digest` (hex) says which codebook it is, and `mark`, its first four bytes, says so in an opening. Whoever
    holds several keeps no two of one mark.
    """

    mark: bytes

    def __init__(self, dictionary: bytes, ranked_ids: Sequence[int] = ()) -> None:
        super().__init__(dictionary)
        self._ranked = np.array(ranked_ids, np.int64)  # [listed], by rank
        self._order = np.argsort(self._ranked)  # [listed]: the ranks, by id
        self._sorted = self._ranked[self._order]
        # Unlisted ids below each listed one.
        self._unlisted_below = self._sorted - np.arange(len(self._sorted))
        state = hashlib.blake2b(len(ranked_ids).to_bytes(4, "little"), digest_size=16)
        state.update(self._ranked.astype("<u4").tobytes())
        state.update(dictionary)
        self.digest = state.hexdigest()
        self.mark = state.digest()[:MARK_BYTES]

    def ranks(self, ids: Sequence[int]) -> list[int]:
        """The ids as they travel."""
        given = np.array(ids, np.int64)
        place = np.searchsorted(self._sorted, given)
        ranks = given + len(self._ranked) - place
        listed = np.flatnonzero(place < len(self._ranked))
        listed = listed[self._sorted[place[listed]] == given[listed]]
        ranks[listed] = self._order[place[listed]]
        return [int(rank) for rank in ranks.tolist()]

    def ids(self, ranks: Sequence[int]) -> list[int]:
        """Undo `ranks`. No rank is without an id."""
        given = np.array(ranks, np.int64)
        unlisted = given - len(self._ranked)
        ids = unlisted + np.searchsorted(self._unlisted_below, unlisted, side="right")
        listed = unlisted < 0
        ids[listed] = self._ranked[given[listed]]
        return [int(token_id) for token_id in ids.tolist()]
