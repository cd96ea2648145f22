"""What a stage reads. In: token files. Out: an endless order of dialogues from three sources in given shares.

The sources: the corpus, the corpus with other names (see augment.py), and drill sequences.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from deploy.demo.training.augment import NameSwapper, drill
from deploy.demo.training.corpus import read_dialogues
from deploy.demo.training.packing import shuffled
from deploy.demo.training.prepare import TokenFile, parts_of, tokenize

# A drill has about 140 tokens; this many are never seen twice in a stage of 20 million tokens.
NUM_DRILLS = 9_000


@dataclass(frozen=True)
class Mixture:
    """Shares of the sequences drawn; they add up to 1."""

    corpus: float = 1.0
    swapped: float = 0.0
    drills: float = 0.0


@dataclass(frozen=True)
class Sources:
    """The token files to draw from, end to end in one, and where each source stands in it."""

    tokens: TokenFile
    ranges: tuple[tuple[int, int], ...]  # first and last+1 dialogue of corpus, swapped, drills

    def order(self, mixture: Mixture, seed: int) -> Iterator[int]:
        """Indices for ever; within a source, each once before any comes again."""
        rng = np.random.default_rng(seed)
        orders = [
            shuffled(range(first, last), seed + number)
            for number, (first, last) in enumerate(self.ranges, start=1)
        ]
        shares = [mixture.corpus, mixture.swapped, mixture.drills]
        while True:
            yield next(orders[rng.choice(len(shares), p=shares)])


def write_augmented(corpus: Path, tokenizer_path: Path, path: Path, *, seed: int) -> None:
    """The swapped corpus and the drills as one token file, the drills last."""
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    dialogues = list(read_dialogues(corpus, "train"))
    swapper = NameSwapper(dialogues, list(tokenizer.get_vocab()))
    rng, drill_rng = random.Random(seed), np.random.default_rng(seed)
    ids = [tokenize(tokenizer, swapper.swap(dialogue, rng)) for dialogue in dialogues]
    parts = [parts_of(dialogue) for dialogue in ids]
    drills = [drill(drill_rng) for _ in range(NUM_DRILLS)]
    ids += [drill_ids for drill_ids, _ in drills]
    parts += [drill_parts for _, drill_parts in drills]
    np.savez(
        path,
        ids=np.concatenate(ids),
        parts=np.concatenate(parts),
        lengths=np.array([len(sequence) for sequence in ids], np.int64),
    )


def join(corpus: TokenFile, augmented: TokenFile) -> Sources:
    """One set of sources from the two token files."""
    first, both = corpus.num_dialogues, corpus.num_dialogues + augmented.num_dialogues
    return Sources(
        TokenFile(
            ids=np.concatenate([corpus.ids, augmented.ids]),
            parts=np.concatenate([corpus.parts, augmented.parts]),
            starts=np.concatenate([corpus.starts, corpus.starts[-1] + augmented.starts[1:]]),
        ),
        ((0, first), (first, both - NUM_DRILLS), (both - NUM_DRILLS, both)),
    )
