"""Fingerprints: padding does not matter, a token that means something else does."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.vocabulary import Fingerprint, Vocabulary

NORMAL, CONTROL, UNUSED = 1, 3, 5
REAL = [random.Random(i).randbytes(1 + i % 7) for i in range(1500)]


def vocabulary(num_tokens, *, changed=None, kind_changed=None, seed=0):
    """A vocabulary of one family: 1,500 real tokens, two of them control tokens, then padding.

    Scaled down from 151,936 against 152,064: sizes 1,519 and 1,521.
    """
    texts = [*REAL, *(b"[PAD%d]" % i for i in range(len(REAL), num_tokens))][:num_tokens]
    kinds = np.full(num_tokens, NORMAL, np.uint16)
    kinds[1498:1500] = CONTROL
    kinds[1500:] = UNUSED
    if seed:
        random.Random(seed).shuffle(texts)
    if changed is not None:
        texts[changed] = b"something else"
    if kind_changed is not None:
        kinds[kind_changed] = CONTROL
    return Vocabulary(texts, kinds)


SMALL, LARGE = vocabulary(1519), vocabulary(1521)


def meet(agent, worker):
    """An agent reads a worker's fingerprint and opens with the shared one; True where the worker agrees."""
    shared = agent.shared_with(worker.fingerprint())
    return shared is not None and worker.agrees_with(shared)


@pytest.mark.parametrize(
    ("agent", "worker"), [(SMALL, SMALL), (SMALL, LARGE), (LARGE, SMALL), (LARGE, LARGE)]
)
def test_a_family_with_other_padding_agrees_over_the_shared_range(agent, worker):
    assert meet(agent, worker)
    shared = agent.shared_with(worker.fingerprint())
    assert shared.num_tokens == min(agent.num_tokens, worker.num_tokens)


@pytest.mark.parametrize("agent_size", [1519, 1521])
@pytest.mark.parametrize("worker_size", [1519, 1521])
@pytest.mark.parametrize("where", [0, 700, 1499, 1518])
def test_one_other_token_within_the_shared_range_does_not_agree(agent_size, worker_size, where):
    assert not meet(vocabulary(agent_size, changed=where), vocabulary(worker_size))
    assert not meet(vocabulary(agent_size), vocabulary(worker_size, changed=where))
    assert not meet(vocabulary(agent_size, kind_changed=where % 1498), vocabulary(worker_size))


def test_one_other_token_beyond_the_shared_range_does_not_matter():
    assert meet(SMALL, vocabulary(1521, changed=1520))
    assert meet(vocabulary(1521, changed=1519), SMALL)


def test_the_same_tokens_in_another_order_do_not_agree():
    assert not meet(vocabulary(1519, seed=1), SMALL)


def test_a_foreign_vocabulary_is_refused_by_size_alone():
    foreign = vocabulary(1200)
    assert foreign.shared_with(LARGE.fingerprint()) is None
    assert LARGE.shared_with(foreign.fingerprint()) is None
    assert not LARGE.agrees_with(LARGE.fingerprint(1200))


def test_the_side_that_holds_the_whole_range_of_the_other_sees_a_foreign_one_at_once():
    foreign = vocabulary(1519, seed=2)
    assert LARGE.shared_with(foreign.fingerprint()) is None
    # The smaller side cannot tell what the larger one's first tokens are, so its worker must.
    shared = foreign.shared_with(LARGE.fingerprint())
    assert shared == foreign.fingerprint()
    assert not LARGE.agrees_with(shared)


@pytest.mark.parametrize("num_tokens", [0, 1, 1368, 1522, 152_064, 2**24])
def test_a_range_that_is_too_small_or_too_large_never_agrees(num_tokens):
    assert not LARGE.agrees_with(Fingerprint(num_tokens, LARGE.fingerprint().digest))


def test_a_fingerprint_says_how_many_tokens_it_covers_and_begins_like_its_digest():
    mark = LARGE.fingerprint(1400)
    assert mark.num_tokens == 1400
    assert len(mark.digest) == 16
    assert str(mark) == f"{mark.digest.hex()[:12]} over 1400 tokens"
    assert mark == SMALL.fingerprint(1400) != SMALL.fingerprint(1401)


def test_the_fingerprint_of_the_protocol_page_comes_out():
    three = Vocabulary([b"a", b"bc", b"\x00"], np.array([1, 1, 3], np.uint16))
    assert three.fingerprint().digest.hex() == "708741ccee4d29b4c2d959b765fa532c"


def test_where_one_token_ends_matters():
    kinds = np.array([1, 1], np.uint16)
    marks = {
        Vocabulary(list(texts), kinds).fingerprint() for texts in ((b"ab", b""), (b"a", b"b"), (b"", b"ab"))
    }
    assert len(marks) == 3


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, ">u2"])
def test_the_type_of_the_kinds_does_not_matter(dtype):
    other = Vocabulary([b"a", b"bc", b"\x00"], np.array([1, 1, 3], dtype))
    assert (
        other.fingerprint()
        == Vocabulary([b"a", b"bc", b"\x00"], np.array([1, 1, 3], np.uint16)).fingerprint()
    )


def test_a_peer_that_asks_for_every_range_does_not_fill_the_memory():
    other = vocabulary(1521)
    marks = [other.fingerprint(count) for count in range(1, 1522)]
    assert len(other._fingerprints) <= 16
    assert marks[0] == other.fingerprint(1)
    assert marks[-1] == LARGE.fingerprint()


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=30), st.data())
def test_a_prefix_has_the_fingerprint_of_a_vocabulary_that_ends_there(texts, data):
    kinds = np.array(data.draw(st.lists(st.integers(0, 2**16 - 1), min_size=len(texts), max_size=len(texts))))
    count = data.draw(st.integers(0, len(texts)))
    whole, prefix = Vocabulary(texts, kinds), Vocabulary(texts[:count], kinds[:count])
    assert whole.fingerprint(count) == prefix.fingerprint()
