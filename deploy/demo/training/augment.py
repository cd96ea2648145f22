"""What makes a small model copy instead of remember. In: dialogues, a seed. Out: changed dialogues, drills.

The corpus names the same few places again and again, so a small model learns the names and not to look them
up in the dialogue: without more, one invented the restaurant in 23 of 23 calls that named one. Two remedies:

- `NameSwapper` gives a dialogue other names, the same in every turn. Half of them are made up.
- `drill` makes sequences of random tokens in which spans come back in another order: only copying helps.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from deploy.demo.training.corpus import Dialogue
from deploy.demo.training.prepare import END_ID, NUM_TOKENS, Part

# Slots with fewer values are choices (a cuisine, a class of seats), which users paraphrase.
MIN_NAMES = 40
SWAP_SHARE = 0.7
MADE_UP_SHARE = 0.5
# A city may stand under a short name elsewhere in the dialogue (SF, NYC); then names stay.
_SHORT_NAME = re.compile(r"\b(?!AM\b|PM\b|OK\b)[A-Z]{2,4}\b|\b(?:Vegas|Philly|Frisco)\b")
_NUMBER_LIKE = re.compile(r"[\d:.,$-]+")
_PHONE = re.compile(r"[\d-]{10,}")
_JSON_UNSAFE = re.compile(r'["\\]|[^\x20-\x7e]')


class NameSwapper:
    """Gives dialogues other names."""

    def __init__(self, dialogues: Iterable[Dialogue], word_pieces: list[str]) -> None:
        """Collect the names of every slot; `word_pieces` are the vocabulary's, to make names up from."""
        names: defaultdict[str, set[str]] = defaultdict(set)
        for dialogue in dialogues:
            for slot, value in _slot_values(dialogue):
                if _is_name(value):
                    names[slot].add(value)
        self._names = {slot: sorted(values) for slot, values in names.items() if len(values) >= MIN_NAMES}
        self._pieces = sorted(
            piece for piece in word_pieces if piece.isascii() and piece.isalpha() and piece.islower()
        )

    def swap(self, dialogue: Dialogue, rng: random.Random) -> Dialogue:
        """The dialogue with most of the names that people say in it replaced, in every turn alike."""
        said = "\n".join(text for role, text in dialogue if role in {"user", "assistant"})
        keeps_cities = _SHORT_NAME.search(said) is not None
        replacements: dict[str, str] = {}
        for slot, value in sorted(set(_slot_values(dialogue))):
            if value in replacements or value not in said or rng.random() > SWAP_SHARE:
                continue
            if _PHONE.fullmatch(value):
                replacements[value] = re.sub(r"\d", lambda _: rng.choice("0123456789"), value)
            elif slot in self._names and _is_name(value) and not (keeps_cities and _is_place(slot)):
                replacements[value] = self._new_name(slot, rng)
        return _replace(dialogue, replacements)

    def _new_name(self, slot: str, rng: random.Random) -> str:
        if rng.random() > MADE_UP_SHARE:
            return rng.choice(self._names[slot])
        words = ("".join(rng.choices(self._pieces, k=rng.randint(1, 3))) for _ in range(rng.randint(1, 3)))
        return " ".join(word.capitalize() for word in words)


def drill(rng: np.random.Generator) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Random tokens in spans that come back in another order; ids and parts, both `[num_tokens]`.

    From the second time on, every token of a span but its first can be known; those count as a call's, the
    rest as padding. With spans AB and CDE: `0 A B C D E C D E A B`, where the last D, E and B count.
    """
    num_spans, rounds = int(rng.integers(4, 11)), int(rng.integers(3, 6))
    spans = [rng.integers(END_ID + 1, NUM_TOKENS, rng.integers(2, 9)) for _ in range(num_spans)]
    ids, parts = [np.zeros(1, np.uint16)], [np.full(1, Part.PADDING, np.uint8)]
    for turn in range(rounds):
        for index in rng.permutation(num_spans):
            known = np.full(len(spans[index]), Part.CALL if turn else Part.PADDING, np.uint8)
            known[0] = Part.PADDING
            ids.append(spans[index].astype(np.uint16))
            parts.append(known)
    return np.concatenate(ids), np.concatenate(parts)


def _slot_values(dialogue: Dialogue) -> Iterator[tuple[str, str]]:
    for role, text in dialogue:
        if role in {"call", "result"}:
            yield from ((slot, value) for slot, value in json.loads(text).items() if slot != "call")


def _is_name(value: str) -> bool:
    return (
        len(value) >= 3
        and value not in {"True", "False", "dontcare"}
        and not _NUMBER_LIKE.fullmatch(value)
        and not _JSON_UNSAFE.search(value)
    )


def _is_place(slot: str) -> bool:
    """Slots whose values people shorten."""
    return any(
        word in slot for word in ("city", "location", "origin", "destination", "area", "where", "airport")
    )


def _replace(dialogue: Dialogue, replacements: dict[str, str]) -> Dialogue:
    """All at once and the longest first, so that no replacement is replaced again."""
    if not replacements:
        return dialogue
    longest_first = sorted(replacements, key=len, reverse=True)
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")
    return [(role, pattern.sub(lambda found: replacements[found[0]], text)) for role, text in dialogue]
