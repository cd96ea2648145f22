"""Codebooks: ranks and ids are one to one, and nothing is read by another codebook than it was written by."""

from __future__ import annotations

import random

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codebook import MARK_BYTES, MAX_RANKED_IDS, Codebook
from schemas.compression import MAX_BODY_BYTES, BodyCodec
from schemas.distribution import TruncatedDistribution
from schemas.errors import OutOfRange, TooLarge, Truncated, UnknownCodebook
from schemas.frames import MAX_TOKEN_ID, Doubt, Draft, Open
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

DICTIONARY = random.Random(1).randbytes(600)
BOOK = Codebook(DICTIONARY, (7, 2))
OTHER = Codebook(DICTIONARY, (2, 7))
PLAIN = BodyCodec()
OPENING = Open(5, Fingerprint(4096, bytes(16)), SamplingParameters(), 1, 64, (7, 2, 0, 9, 4095))
Q_HAT = TruncatedDistribution(np.array([1, 2, 7], np.int32), np.array([6, 50, 200], np.uint16))
DRAFT = Draft(5, 0, 5, (2, 4095), (256, 9), Doubt(Q_HAT, 2, 2000))


def test_listed_ids_come_first_and_the_others_keep_their_order():
    assert BOOK.ranks([7, 2, 0, 1, 3, 4, 5, 6, 8]) == list(range(9))


@given(st.sets(st.integers(0, 400), max_size=60), st.randoms(), st.integers(0, MAX_TOKEN_ID - 500))
def test_every_id_has_one_rank_and_every_rank_one_id(listed, rng, far):
    order = sorted(listed)
    rng.shuffle(order)
    book = Codebook(DICTIONARY, order)
    assert sorted(book.ranks(range(500))) == list(range(500))
    assert book.ids(book.ranks(range(far, far + 500))) == list(range(far, far + 500))
    assert book.ranks(book.ids(range(far, far + 500))) == list(range(far, far + 500))


def test_no_ids_have_no_ranks():
    assert BOOK.ranks([]) == BOOK.ids([]) == []


def test_another_order_or_dictionary_is_another_codebook():
    books = [BOOK, OTHER, Codebook(DICTIONARY), Codebook(DICTIONARY[:-1], (7, 2))]
    assert len({book.digest for book in books}) == len({book.mark for book in books}) == 4
    assert all(book.mark == bytes.fromhex(book.digest)[:MARK_BYTES] for book in books)
    assert Codebook(DICTIONARY, (7, 2)).digest == BOOK.digest


def test_a_codebook_has_exactly_this_digest():
    assert Codebook(b"hunch", (7, 2)).digest == "e0f95ff749de426846c8d0db1f34ed3c"


def test_frames_by_a_codebook_come_back_as_they_were():
    assert codec.decode_open(codec.encode_open(OPENING, BOOK), BOOK) == OPENING
    back = codec.decode_draft(codec.encode_draft(DRAFT, BOOK), BOOK)
    assert (back.run_ids, back.run_weights) == (DRAFT.run_ids, DRAFT.run_weights)
    assert back.doubt is not None
    assert back.doubt.q_hat.same_as(Q_HAT)
    assert (back.doubt.token_id, back.doubt.weight) == (7, 200)


def test_a_distribution_travels_in_the_order_of_its_ranks():
    # Ranks of 7, 2 and 1 are 0, 1 and 3: gaps 0, 0 and 1; weights 200 and 50; the first one is in doubt.
    assert codec.encode_draft(DRAFT, BOOK).endswith(bytes([3, 0, 0, 1, 199, 49, 0]))


def test_an_opening_names_its_codebook_and_a_draft_says_that_it_uses_it():
    opening, draft = codec.encode_open(OPENING, BOOK), codec.encode_draft(DRAFT, BOOK)
    assert codec.read_mark(opening) == BOOK.mark
    assert codec.is_by_codebook(draft)
    assert codec.read_mark(codec.encode_open(OPENING, PLAIN)) is None
    assert not codec.is_by_codebook(codec.encode_draft(DRAFT, PLAIN))
    assert codec.read_mark(draft) is None
    assert not codec.is_by_codebook(opening)


@pytest.mark.parametrize("reader", [PLAIN, OTHER])
def test_an_opening_is_read_by_no_other_codebook(reader):
    with pytest.raises(UnknownCodebook, match=BOOK.mark.hex()):
        codec.decode_open(codec.encode_open(OPENING, BOOK), reader)


def test_what_names_no_codebook_is_not_read_by_one():
    with pytest.raises(UnknownCodebook):
        codec.decode_open(codec.encode_open(OPENING, PLAIN), BOOK)
    with pytest.raises(UnknownCodebook):
        codec.decode_draft(codec.encode_draft(DRAFT, PLAIN), BOOK)
    with pytest.raises(UnknownCodebook):
        codec.decode_draft(codec.encode_draft(DRAFT, BOOK), PLAIN)


def test_an_opening_that_ends_within_its_mark_is_refused():
    with pytest.raises(Truncated, match="codebook"):
        codec.read_mark(codec.encode_open(OPENING, BOOK)[:5])


def test_a_rank_of_an_id_outside_the_vocabulary_is_refused():
    book = Codebook(DICTIONARY, (4096,))
    body = bytes([1, 0])  # one id, of rank 0
    frame = codec.encode_open(OPENING, book)
    header = frame[: frame.index(bytes([5, *book.mark])) + 5 + 2 + 16 + 28 + 8 + 1]
    uncompressed = bytes([header[0], header[1] & ~1]) + header[2:]
    with pytest.raises(OutOfRange, match="4096 is not below 4096"):
        codec.decode_open(uncompressed + body, book)


def test_a_bomb_that_uses_the_dictionary_is_refused_before_it_is_big():
    parameters = zstandard.ZstdCompressionParameters.from_level(
        19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=True, write_dict_id=False
    )
    compressor = zstandard.ZstdCompressor(
        dict_data=zstandard.ZstdCompressionDict(DICTIONARY), compression_params=parameters
    )
    bomb = compressor.compress(DICTIONARY * (MAX_BODY_BYTES // len(DICTIONARY) + 1))
    assert len(bomb) < 1000
    with pytest.raises(TooLarge, match="announces"):
        BOOK.unpack(bomb, compressed=True)


def test_the_longest_prompt_comes_back_by_the_longest_list():
    book = Codebook(DICTIONARY, random.Random(3).sample(range(150_000), MAX_RANKED_IDS))
    ids = random.Random(4).sample(range(150_000), 131_072)
    assert book.ids(book.ranks(ids)) == ids
