"""Do two models mean the same by an id? In: the tokens of both. Out: a fingerprint each, and a verdict.

Vocabularies of one family may be padded to different sizes (151,936 against 152,064), so a fingerprint is
taken over the range that both share: it is a hash of the first `num_tokens` tokens, and says how many.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DIGEST_BYTES = 16
# Padding makes sizes of one family differ by well under a percent; less than this shared is another family.
_LEAST_SHARED = 0.9
# Others choose the range, so what is kept is bounded. A fleet of one family needs one or two.
_MAX_KEPT = 16


@dataclass(frozen=True)
class Fingerprint:
    """A hash over the first `num_tokens` tokens of a vocabulary."""

    num_tokens: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.digest.hex()[:12]} over {self.num_tokens} tokens"


class Vocabulary:
    """The tokens of a model: `texts` as the file has them, `kinds` `[vocab]` (control, byte, normal, …)."""

    def __init__(self, texts: list[bytes], kinds: npt.NDArray[np.uint16]) -> None:
        assert len(texts) == len(kinds)
        self._lengths = np.array([len(text) for text in texts], "<u4")  # [vocab]
        self._kinds = kinds.astype("<u2")  # [vocab]
        self._text = b"".join(texts)
        self._fingerprints: dict[int, Fingerprint] = {}

    @property
    def num_tokens(self) -> int:
        """How many tokens there are, padding included."""
        return len(self._lengths)

    def fingerprint(self, num_tokens: int | None = None) -> Fingerprint:
        """The fingerprint of the first `num_tokens` tokens, of which there must be so many; all by default."""
        count = self.num_tokens if num_tokens is None else num_tokens
        assert 0 <= count <= self.num_tokens
        if count not in self._fingerprints:
            if len(self._fingerprints) >= _MAX_KEPT:
                del self._fingerprints[next(iter(self._fingerprints))]
            lengths = self._lengths[:count]
            state = hashlib.blake2b(digest_size=DIGEST_BYTES)
            state.update(lengths.tobytes())
            state.update(self._kinds[:count].tobytes())
            state.update(memoryview(self._text)[: int(lengths.sum(dtype=np.int64))])
            self._fingerprints[count] = Fingerprint(count, state.digest())
        return self._fingerprints[count]

    def shared_with(self, other: Fingerprint) -> Fingerprint | None:
        """The fingerprint over the range shared with another vocabulary, to be checked by its owner.

        None where they cannot be of one family: too little in common, or, where this side holds the whole
        of the other's range and so can tell, different tokens.
        """
        count = min(self.num_tokens, other.num_tokens)
        if count < _LEAST_SHARED * max(self.num_tokens, other.num_tokens):
            return None
        own = self.fingerprint(count)
        return own if count < other.num_tokens or own == other else None

    def agrees_with(self, shared: Fingerprint) -> bool:
        """Whether another side's fingerprint over the shared range fits this vocabulary."""
        count = shared.num_tokens
        return (
            _LEAST_SHARED * self.num_tokens <= count <= self.num_tokens and self.fingerprint(count) == shared
        )
