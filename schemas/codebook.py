"""The codebook of a pair: what its bodies are made of most often. In: a dictionary, ids. Out: shorter bodies.

Both ends hold the same codebook, from the pair's profile, and a session uses it where its opening names it. It is
two things: a zstd dictionary, and the most frequent token ids, which travel as their rank. A rank is small where
an id is not, so it takes a byte instead of two or three, and the gaps between ranks are small too.

Ranks are ids in another order, none left out: those listed first, then all others, ascending. With the list
[7, 2] the ids 7, 2, 0, 1, 3, 4, 5, 6, 8, … have the ranks 0, 1, 2, ….
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

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
        self._ranked = tuple(ranked_ids)
        self._rank_of = {token_id: rank for rank, token_id in enumerate(self._ranked)}
        self._sorted = sorted(self._ranked)
        # Unlisted ids below each listed one.
        self._unlisted_below = [token_id - place for place, token_id in enumerate(self._sorted)]
        state = hashlib.blake2b(len(self._ranked).to_bytes(4, "little"), digest_size=16)
        state.update(b"".join(token_id.to_bytes(4, "little") for token_id in self._ranked))
        state.update(dictionary)
        self.digest = state.hexdigest()
        self.mark = state.digest()[:MARK_BYTES]

    def ranks(self, ids: Sequence[int]) -> list[int]:
        """The ids as they travel."""
        known = self._rank_of
        return [known[token_id] if token_id in known else self._unlisted_rank(token_id) for token_id in ids]

    def ids(self, ranks: Sequence[int]) -> list[int]:
        """Undo `ranks`. No rank is without an id."""
        count = len(self._ranked)
        return [self._ranked[rank] if rank < count else self._unlisted_id(rank) for rank in ranks]

    def _unlisted_rank(self, token_id: int) -> int:
        """Behind all listed ones, and the unlisted ones below it."""
        return len(self._ranked) + token_id - bisect_left(self._sorted, token_id)

    def _unlisted_id(self, rank: int) -> int:
        place = rank - len(self._ranked)
        return place + bisect_right(self._unlisted_below, place)
