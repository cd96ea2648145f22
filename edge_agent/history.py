"""The text so far, for judges that look at it. In: token ids. Out: the last ones, and what followed them before.

Large models copy from their context better than small ones do, so whether the draft token is a copy tells
something about its fate: where the last tokens stood before in the text and something else followed them, the target
model is the likelier to object (docs/experiments.md).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

# Longer repetitions are rare, and predicted no better.
MAX_CONTEXT = 3


class History:
    """A view of token ids that grow elsewhere, with an index of what followed each one, two and three tokens.

    Each id is indexed once, at the first look after it came, from where it will not change any more. Costs three
    dictionary entries a token.
    """

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self._ids = ids
        self._num_indexed = 0
        self._followers: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)

    def last(self, count: int) -> tuple[int, ...]:
        """The last `count` ids, the nearest last; fewer at the beginning."""
        return tuple(self._ids[-count:])

    def copied(self, token_id: int) -> list[float | None]:
        """Of all earlier places of the last one, two and three ids, the share that this token followed, `[3]`.

        None where there is no earlier place. Example: after 5 6 7 5 6 8 5 6, token 7 has 1/2 after `6`, 1/2 after
        `5 6`, and None after `8 5 6`.
        """
        self._index()
        return [self._share(self.last(length), token_id) for length in range(1, MAX_CONTEXT + 1)]

    def _share(self, context: tuple[int, ...], token_id: int) -> float | None:
        followers = self._followers.get(context)
        return None if followers is None else followers[token_id] / followers.total()

    def _index(self) -> None:
        for end in range(self._num_indexed, len(self._ids)):
            for length in range(1, min(MAX_CONTEXT, end) + 1):
                self._followers[tuple(self._ids[end - length : end])][self._ids[end]] += 1
        self._num_indexed = len(self._ids)
