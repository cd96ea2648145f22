"""The papers' upload: 8 bits of probability and 15 of index an entry. In: `q`. Out: bytes, and back.

Index first, both most significant bit first, one entry after the other without gaps: 30 entries take 690 bits,
sent as 87 bytes. Example: index 1 with probability 1 is 000000000000001 11111111.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cloud_broker_worker.baselines import INDEX_BITS, PROBABILITY_BITS, fill_uniformly
from runtime.sampling import Indices, largest
from schemas.distribution import Probabilities
from schemas.errors import ConfigurationError, OutOfRange

_ENTRY_BITS = INDEX_BITS + PROBABILITY_BITS
_LEVELS = (1 << PROBABILITY_BITS) - 1


def chosen_entries(q: Probabilities, num_entries: int | None) -> Indices:
    """The ids of the entries that are sent: the likeliest, or (None) the whole vocabulary in its order."""
    if len(q) > 1 << INDEX_BITS:
        raise ConfigurationError(
            f"the papers' index has {INDEX_BITS} bits; a vocabulary of {len(q)} tokens does not fit"
        )
    return np.arange(len(q)) if num_entries is None else largest(q, num_entries)


def pack(q: Probabilities, token_ids: Indices) -> bytes:
    """The entries of `token_ids` `[n]`, probabilities rounded to 255ths."""
    levels = np.rint(q[token_ids] * _LEVELS).astype(np.int64)
    entries = (token_ids.astype(np.int64) << PROBABILITY_BITS) | levels  # [n]
    as_bytes = entries.astype(">u4").view(np.uint8).reshape(-1, 4)  # [n, 4]
    bits = np.unpackbits(as_bytes, axis=1)[:, -_ENTRY_BITS:]  # [n, 23]
    return np.packbits(bits).tobytes()


def unpack(data: bytes, num_tokens: int) -> npt.NDArray[np.float64]:
    """What the worker takes for `q`, `[num_tokens]`: missing entries share what is left evenly.

    A whole vocabulary stays as it is sent, though rounding leaves less than 1 of it. Raises OutOfRange.
    """
    count = len(data) * 8 // _ENTRY_BITS
    bits = np.unpackbits(np.frombuffer(data, np.uint8))[: count * _ENTRY_BITS]
    padded = np.zeros((count, 32), np.uint8)
    padded[:, -_ENTRY_BITS:] = bits.reshape(count, _ENTRY_BITS)
    entries = np.packbits(padded, axis=1).view(">u4")[:, 0].astype(np.int64)  # [n]
    token_ids, levels = entries >> PROBABILITY_BITS, entries & _LEVELS
    if count and token_ids.max() >= num_tokens:
        raise OutOfRange("entry", f"token id {token_ids.max()} is not below {num_tokens}")
    q = np.zeros(num_tokens)
    q[token_ids] = levels / _LEVELS
    return fill_uniformly(q, token_ids)
