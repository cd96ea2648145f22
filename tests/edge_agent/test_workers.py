"""Which worker an agent asks."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.workers import WorkerDirectory
from schemas.messages import Presence, VocabularyMark, WorkerStatus
from schemas.vocabulary import Vocabulary

VOCABULARY = Vocabulary([b"token %d" % i for i in range(100)], np.ones(100, np.uint16))
PADDED = Vocabulary([b"token %d" % i for i in range(100)] + [b"pad"] * 4, np.ones(104, np.uint16))
FOREIGN = Vocabulary([b"other %d" % i for i in range(100)], np.ones(100, np.uint16))


def status(vocabulary: Vocabulary | None = VOCABULARY, **fields):
    mark = vocabulary.fingerprint() if vocabulary else None
    known = {
        "state": Presence.ONLINE,
        "boot": 1,
        "model": "large",
        "vocabulary": mark and VocabularyMark.of(mark),
        "max_sessions": 10,
    }
    return WorkerStatus(**(known | fields))


def directory(agent="agent-1", vocabulary=VOCABULARY):
    return WorkerDirectory(agent, vocabulary)


def test_a_worker_is_asked_until_three_beats_are_missed():
    workers = directory()
    workers.update("w", status(beat_s=5), now_s=100)
    assert workers.ranked(115) == ["w"]
    assert workers.ranked(115.1) == []
    assert "no sign of life from w" in workers.why_none(116)


def test_a_worker_that_says_farewell_is_asked_no_more():
    workers = directory()
    workers.update("w", status(), 0)
    workers.update("w", status(state=Presence.OFFLINE), 1)
    assert workers.ranked(1) == []
    assert workers.boot("w") is None


def test_a_late_will_of_an_earlier_start_does_not_mark_a_new_process_dead():
    workers = directory()
    workers.update("w", status(boot=2), 0)
    workers.update("w", status(boot=1, state=Presence.OFFLINE), 1)
    assert workers.ranked(1) == ["w"]
    assert workers.boot("w") == 2


def test_a_foreign_vocabulary_is_named_with_both_sides_and_the_mend():
    workers = directory()
    workers.update("w", status(FOREIGN), 0)
    assert workers.ranked(0) == []
    why = workers.why_none(0)
    assert str(VOCABULARY.fingerprint())[:12] in why
    assert "w (large, " in why
    assert "use models of one family" in why


def test_a_vocabulary_padded_to_another_size_is_of_one_family_from_either_side():
    for own, other in ((VOCABULARY, PADDED), (PADDED, VOCABULARY)):
        workers = directory(vocabulary=own)
        workers.update("w", status(other), 0)
        assert workers.ranked(0) == ["w"]
        shared = workers.shared_vocabulary("w")
        assert shared is not None
        assert other.agrees_with(shared)


def test_agents_spread_over_workers_and_only_those_of_a_lost_worker_move():
    names = [f"w{i}" for i in range(4)]
    first, after = {}, {}
    for number in range(400):
        workers = directory(f"agent-{number}")
        for name in names:
            workers.update(name, status(), 0)
        first[number] = workers.ranked(0)[0]
        workers.update("w0", status(state=Presence.OFFLINE), 1)
        after[number] = workers.ranked(1)[0]
    for name in names:
        assert 60 < sum(chosen == name for chosen in first.values()) < 140
    assert all(after[number] == chosen for number, chosen in first.items() if chosen != "w0")


def test_a_worker_with_more_room_gets_more_agents_and_a_full_one_comes_last():
    chosen = []
    for number in range(300):
        workers = directory(f"agent-{number}")
        workers.update("large", status(max_sessions=30), 0)
        workers.update("small", status(max_sessions=10), 0)
        workers.update("full", status(max_sessions=10, sessions=10), 0)
        ranked = workers.ranked(0)
        assert ranked[-1] == "full"
        chosen.append(ranked[0])
    assert 180 < chosen.count("large") < 270


def test_a_will_of_the_present_start_counts_and_a_new_start_is_believed_again():
    workers = directory()
    workers.update("w", status(boot=2), 0)
    workers.update("w", status(boot=2, state=Presence.OFFLINE), 1)
    assert workers.ranked(1) == []
    workers.update("w", status(boot=1), 2)  # a clock that went backwards
    assert workers.ranked(2) == ["w"]
    assert workers.boot("w") == 1


def test_a_will_that_is_late_makes_no_worker_fresh_again():
    workers = directory()
    workers.update("w", status(boot=2, beat_s=5), 0)
    workers.update("w", status(boot=1, state=Presence.OFFLINE), 14)
    assert workers.ranked(15) == ["w"]
    assert workers.ranked(15.1) == []


def test_nobody_has_been_heard_of():
    workers = directory()
    assert workers.ranked(0) == []
    assert workers.boot("w") is None
    assert workers.status("w") is None
    assert workers.why_none(0) == "no worker is online"


def test_a_worker_without_a_vocabulary_is_not_asked_and_named():
    workers = directory()
    workers.update("w", status(vocabulary=None), 0)
    assert workers.ranked(0) == []
    assert workers.shared_vocabulary("w") is None
    assert "w (large, no vocabulary)" in workers.why_none(0)


def test_a_vocabulary_that_shares_too_little_is_foreign_even_where_the_tokens_agree():
    workers = directory()
    much_larger = Vocabulary([b"token %d" % i for i in range(200)], np.ones(200, np.uint16))
    workers.update("w", status(much_larger), 0)
    assert workers.ranked(0) == []


def test_the_choice_is_the_same_in_whatever_order_workers_are_heard_of():
    for number in range(20):
        rankings = []
        for names in (["w0", "w1", "w2"], ["w2", "w0", "w1"]):
            workers = directory(f"agent-{number}")
            for name in names:
                workers.update(name, status(), 0)
            rankings.append(workers.ranked(0))
        assert rankings[0] == rankings[1]


def test_a_new_worker_takes_its_share_and_moves_nobody_between_the_others():
    moved = 0
    for number in range(400):
        workers = directory(f"agent-{number}")
        for name in ("w0", "w1", "w2"):
            workers.update(name, status(), 0)
        before = workers.ranked(0)
        workers.update("w3", status(), 0)
        after = workers.ranked(0)
        assert [name for name in after if name != "w3"] == before
        moved += after[0] == "w3"
    assert 60 < moved < 140


@pytest.mark.parametrize("digest", [b"\x00" * 8, b"\xff" * 8])
def test_no_hash_is_too_small_or_too_large_for_a_score(digest, monkeypatch):
    class FixedHash:
        def digest(self):
            return digest

    monkeypatch.setattr("edge_agent.workers.hashlib.blake2b", lambda *_args, **_options: FixedHash())
    score = WorkerDirectory._score(directory(), "w", status())
    assert 0 < score < float("inf")


def test_only_ids_that_every_worker_knows_are_shared_with_all():
    workers = directory(vocabulary=PADDED)
    assert workers.num_shared == 104
    workers.update("foreign", status(FOREIGN), 0)
    workers.update("padded", status(PADDED), 0)
    assert workers.num_shared == 104
    workers.update("w", status(VOCABULARY), 0)
    assert workers.num_shared == 100
    workers.update("w", status(VOCABULARY, state=Presence.OFFLINE), 1)
    assert workers.num_shared == 100  # it may come back, and is then told the whole answer
