"""The target model evaluates what is new, and nothing that no longer holds stays in its cache."""

# A None where there should be work fails a test by itself: no assertion is needed before each look.
# mypy: disable-error-code="union-attr,list-item,arg-type,possibly-undefined"

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cloud_broker_worker.runner import TargetRunner
from cloud_broker_worker.sessions import SessionTable
from schemas.distribution import one_hot
from schemas.errors import ModelError
from schemas.frames import Doubt, Draft, Open, Outcome, Verdict
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

PROMPT = (1, 2, 3, 4, 5)
VOCAB = 8


class FakeContext:
    """A cache that fails where llama.cpp would: a span must begin where its sequence ends.

    A row of logits tells the tokens that led to it: entry 0 is how many there are, entry 1 their sum.
    """

    def __init__(self, *, forgets_all=False):
        self.cache: dict[int, list[int]] = {}
        self.passes: list[list[tuple[int, int, list[int]]]] = []
        self.fails = False
        self._forgets_all = forgets_all

    def decode(self, spans):
        if self.fails:
            raise ModelError("no room left in its cache")
        self.passes.append([(span.sequence, span.start, list(span.token_ids)) for span in spans])
        return [self._evaluate(span) for span in spans]

    def _evaluate(self, span):
        cache = self.cache.setdefault(span.sequence, [])
        assert span.start == len(cache)
        assert span.num_logits <= len(span.token_ids)
        cache += span.token_ids
        rows = np.zeros((span.num_logits, VOCAB), np.float32)
        for index in range(span.num_logits):
            seen = cache[: len(cache) - span.num_logits + index + 1]
            rows[index, :2] = len(seen), sum(seen)
        return rows

    def truncate(self, sequence, length):
        if self._forgets_all:
            length = 0
        del self.cache.setdefault(sequence, [])[length:]
        return length


def runner_over(context: Any) -> TargetRunner:
    return TargetRunner(context)


def opening(session=1, prompt=PROMPT):
    return Open(session, Fingerprint(100, bytes(16)), SamplingParameters(), 0, 500, prompt)


def draft(position, *run, epoch=0, token_id=9, asks=True, final=False):
    doubt = Doubt(one_hot(token_id), 0, 1000) if asks else None
    return Draft(1, epoch, position, run, (256,) * len(run), doubt, final)


class Worker:
    """Sessions and runner over a fake context, without the network."""

    def __init__(self, context: FakeContext, max_sessions: int = 2) -> None:
        self.context = context
        self.table: Any = SessionTable(max_sessions, n_ctx=400)  # Any: the tests know when there is work
        self.runner = runner_over(context)

    def open(self, agent="a", prompt=PROMPT):
        work = self.table.open(agent, opening(prompt=prompt), set()).work
        self.runner.run([work])
        self.table.prefilled(work)
        return work.session

    def judge(self, sent, outcome=Outcome.ACCEPTED, agent="a", token_id=50):
        """Evaluate a draft and enter a verdict; returns the rows, or None where there was no work."""
        work = self.table.admit(agent, sent).work
        if work is None:
            return None
        (rows,) = self.runner.run([work])
        token = None if outcome is Outcome.AUDITED else token_id
        self.table.judged(work, Verdict(1, sent.epoch, sent.position, outcome, token, b""))
        return rows


@pytest.mark.parametrize("forgets_all", [False, True])
def test_each_row_is_the_targets_view_before_a_token_of_the_draft_or_after_the_one_in_doubt(forgets_all):
    worker = Worker(FakeContext(forgets_all=forgets_all))
    worker.open()
    rows = worker.judge(draft(5, 6, 7))
    assert rows[:, 0].tolist() == [5, 6, 7, 8]
    assert rows[:, 1].tolist() == [15, 21, 28, 37]


def test_after_an_accepted_token_only_what_is_new_is_evaluated():
    worker = Worker(FakeContext())
    worker.open()
    worker.judge(draft(5, 6))
    worker.judge(draft(8, 7))
    assert worker.context.passes == [
        [(0, 0, [1, 2, 3, 4])],
        [(0, 4, [5, 6, 9])],
        [(0, 7, [50, 7, 9])],
    ]


def test_a_recovered_token_takes_the_place_of_the_draft_token_in_the_cache():
    worker = Worker(FakeContext())
    worker.open()
    worker.judge(draft(5, 6), Outcome.RECOVERED)
    worker.judge(draft(7, epoch=1))
    assert worker.context.cache[0] == [*PROMPT, 6, 50, 9]
    assert worker.context.passes[-1] == [(0, 6, [50, 9])]


def test_a_draft_of_a_higher_epoch_takes_the_cache_back_to_where_it_begins():
    worker = Worker(FakeContext())
    worker.open()
    worker.judge(draft(5, 6, 7, 8))
    rows = worker.judge(draft(6, 20, epoch=1))
    assert worker.context.cache[0] == [*PROMPT, 6, 20, 9]
    assert rows[:, 1].tolist() == [21, 41, 50]


def test_a_cache_that_can_only_forget_everything_is_filled_again_with_the_same_rows():
    workers = [Worker(FakeContext(forgets_all=forgets_all)) for forgets_all in (False, True)]
    rows = []
    for worker in workers:
        worker.open()
        worker.judge(draft(5, 6), Outcome.RECOVERED)
        rows.append(worker.judge(draft(7, 8, epoch=1)))
    assert np.array_equal(*rows)
    assert [worker.context.passes[-1] for worker in workers] == [
        [(0, 6, [50, 8, 9])],
        [(0, 0, [*PROMPT, 6, 50, 8, 9])],
    ]


def test_an_audit_leaves_its_last_token_to_the_next_draft():
    worker = Worker(FakeContext())
    worker.open()
    rows = worker.judge(draft(5, 6, 7, asks=False), Outcome.AUDITED)
    assert rows[:, 0].tolist() == [5, 6]
    assert worker.judge(draft(7))[:, 0].tolist() == [7, 8]


def test_work_without_tokens_evaluates_none():
    worker = Worker(FakeContext())
    worker.open(prompt=(7,))
    assert worker.context.passes == [[(0, 0, [])]]
    assert worker.judge(draft(1, asks=False, final=True), Outcome.AUDITED).shape == (0, VOCAB)


def test_a_session_in_the_place_of_another_sees_nothing_of_it():
    worker = Worker(FakeContext(), max_sessions=1)
    worker.open("a")
    worker.judge(draft(5, 6, 7))
    worker.open("b", prompt=(30, 31, 32))
    assert worker.context.cache[0] == [30, 31]
    assert worker.judge(draft(3), agent="b")[:, 1].tolist() == [93, 102]


def test_sessions_are_evaluated_in_one_pass():
    worker = Worker(FakeContext())
    worker.open("a")
    worker.open("b", prompt=(30, 31))
    batch = [
        worker.table.admit("a", draft(5, 6)).work,
        worker.table.admit("b", draft(2)).work,
    ]
    rows = worker.runner.run(batch)
    assert worker.context.passes[-1] == [(0, 4, [5, 6, 9]), (1, 1, [31, 9])]
    assert [row.shape for row in rows] == [(3, VOCAB), (2, VOCAB)]


def test_after_a_failure_all_caches_are_emptied_and_sessions_can_be_opened_anew():
    worker = Worker(FakeContext())
    worker.open("a")
    worker.open("b")
    worker.context.fails = True
    with pytest.raises(ModelError):
        worker.runner.run([worker.table.admit("a", draft(5)).work])
    worker.context.fails = False
    worker.runner.forget()
    assert worker.context.cache == {0: [], 1: []}
    worker.table.drop_agent("a")
    worker.open("a")
    assert worker.judge(draft(5))[:, 1].tolist() == [15, 24]


@pytest.mark.parametrize("forgets_all", [False, True])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(-3, 1), st.integers(0, 3), st.sampled_from(Outcome)),
        max_size=8,
    )
)
def test_whatever_comes_the_rows_are_those_of_the_whole_text_evaluated_at_once(forgets_all, steps):
    worker = Worker(FakeContext(forgets_all=forgets_all))
    session = worker.open()
    for epoch_step, position_step, run_length, outcome in steps:
        epoch = (session.last_draft or (0, 0))[0] + epoch_step
        position = max(1, len(session.ids) + position_step)
        sent = draft(position, *range(20, 20 + run_length), epoch=epoch, asks=outcome is not Outcome.AUDITED)
        known = session.ids[:position]
        rows = worker.judge(sent, outcome)
        if rows is None:
            continue
        text = [*known, *sent.run_ids, *([9] if sent.doubt else [])]
        ends = range(position, position + len(rows))
        assert rows[:, :2].tolist() == [[end, sum(text[:end])] for end in ends]
