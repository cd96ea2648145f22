"""Which codebook a frame is read with follows from the opening of its session, agent by agent."""

from __future__ import annotations

import base64

import pytest

from cloud_broker_worker.codebooks import MAX_CODEBOOKS, Codebooks
from schemas import codec
from schemas.codebook import Codebook
from schemas.compression import BodyCodec
from schemas.errors import Truncated, UnknownCodebook
from schemas.frames import Draft, Open
from schemas.profile import Profile
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint
from tests.profiles import made_up_profile

PLAIN = BodyCodec()
PROFILE = made_up_profile()


def profile_with(words: bytes) -> Profile:
    return PROFILE.model_copy(update={"dictionary": base64.b64encode(words).decode(), "ranked_ids": (5, 3)})


def book_of(words: bytes) -> Codebook:
    book = profile_with(words).codebook()
    assert book is not None
    return book


def opening(bodies: BodyCodec, session: int = 7) -> bytes:
    return codec.encode_open(
        Open(session, Fingerprint(4096, bytes(16)), SamplingParameters(), 1, 64, (1, 2, 3)), bodies
    )


def draft(bodies: BodyCodec, session: int = 7) -> bytes:
    return codec.encode_draft(Draft(session, 0, 3, (5, 6), (1, 2), None), bodies)


@pytest.fixture
def books() -> Codebooks:
    known = Codebooks()
    known.learn(profile_with(b"first"))
    return known


def test_a_session_is_read_by_the_codebook_that_its_opening_names(books):
    books.learn(profile_with(b"second"))
    for number, words in enumerate((b"first", b"second")):
        book = book_of(words)
        assert books.for_opening("a", opening(book, number)).mark == book.mark
    for number, words in enumerate((b"first", b"second")):
        book = book_of(words)
        reader = books.for_draft("a", draft(book, number))
        assert codec.decode_draft(draft(book, number), reader).run_ids == (5, 6)


def test_what_names_none_is_read_without(books):
    assert books.for_opening("a", opening(PLAIN)).mark is None
    assert books.for_draft("a", draft(PLAIN)).mark is None


def test_an_opening_with_a_codebook_that_nobody_knows_is_refused(books):
    with pytest.raises(UnknownCodebook, match="open without it"):
        books.for_opening("a", opening(book_of(b"unheard of")))


def test_a_session_is_that_of_its_agent_alone(books):
    book = book_of(b"first")
    books.for_opening("a", opening(book))
    with pytest.raises(UnknownCodebook, match="open it anew"):
        books.for_draft("b", draft(book))


def test_a_session_opened_anew_without_a_codebook_has_none_left(books):
    book = book_of(b"first")
    books.for_opening("a", opening(book))
    books.for_opening("a", opening(PLAIN))
    with pytest.raises(UnknownCodebook):
        books.for_draft("a", draft(book))


def test_a_session_whose_opening_was_refused_has_none_left(books):
    book = book_of(b"first")
    books.for_opening("a", opening(book))
    with pytest.raises(UnknownCodebook):
        books.for_opening("a", opening(book_of(b"unheard of")))
    with pytest.raises(UnknownCodebook):
        books.for_draft("a", draft(book))


def test_an_opening_cut_short_is_refused_for_that(books):
    with pytest.raises(Truncated):
        books.for_opening("a", opening(book_of(b"first"))[:4])
    assert books.for_opening("a", b"").mark is None  # which the codec will refuse
    assert books.for_draft("a", b"").mark is None


def test_a_profile_is_learned_once_and_one_without_a_codebook_never(books):
    assert books.digests == (book_of(b"first").digest,)
    assert not books.learn(profile_with(b"first"))
    assert not books.learn(PROFILE)
    assert books.learn(profile_with(b"second"))
    assert books.digests == (book_of(b"first").digest, book_of(b"second").digest)


def test_the_newest_codebooks_are_kept_and_sessions_of_older_ones_go_on(books):
    book = book_of(b"first")
    books.for_opening("a", opening(book))
    for number in range(MAX_CODEBOOKS):
        books.learn(profile_with(b"another %d" % number))
    assert len(books.digests) == MAX_CODEBOOKS
    assert books.for_draft("a", draft(book)).mark == book.mark
    with pytest.raises(UnknownCodebook):
        books.for_opening("b", opening(book))


def test_of_two_codebooks_with_one_mark_the_first_stays(books, monkeypatch):
    first, second = book_of(b"first"), book_of(b"second")
    second.mark = first.mark
    monkeypatch.setattr(Profile, "codebook", lambda _profile: second)
    assert not books.learn(PROFILE)
    assert books.digests == (first.digest,)
