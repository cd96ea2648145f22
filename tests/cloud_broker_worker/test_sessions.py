"""Sessions and their rules: what is judged, repeated, dropped, answered with a resync, evicted."""

from __future__ import annotations

import pytest

from cloud_broker_worker.scheduler import Arrival, Scheduler
from cloud_broker_worker.sessions import SessionTable
from schemas.distribution import one_hot
from schemas.frames import Doubt, Draft, Open, Outcome, Refused, Resync, Verdict
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

PROMPT = (1, 2, 3, 4, 5)


def opening(session=1, prompt=PROMPT):
    return Open(session, Fingerprint(100, bytes(16)), SamplingParameters(), 0, 500, prompt)


def draft(position, *run, epoch=0, session=1, token_id=9, deadline_ms=1000, final=False, asks=True):
    doubt = Doubt(one_hot(token_id), 0, deadline_ms) if asks else None
    return Draft(session, epoch, position, run, (256,) * len(run), doubt, final)


@pytest.fixture
def table():
    table = SessionTable(max_sessions=2, n_ctx=50)
    start(table)
    return table


def start(table, agent="a", session=1, busy=frozenset()):
    work = table.open(agent, opening(session), set(busy)).work
    table.prefilled(work.session)
    return work.session


def judge(table, sent, outcome=Outcome.ACCEPTED, token_id=50, agent="a"):
    """Admit a draft and enter a verdict; returns the work and the verdict."""
    work = table.admit(agent, sent).work
    assert work is not None
    token_id = None if outcome is Outcome.AUDITED else token_id
    verdict = Verdict(sent.session, sent.epoch, sent.position, outcome, token_id, b"")
    table.judged(work, verdict)
    return work, verdict


def test_a_prompt_is_evaluated_all_but_its_last_token(table):
    work = table.open("a", opening(2), set()).work
    assert (work.ids, work.num_evaluated, work.num_rows) == ([1, 2, 3, 4], 0, 0)
    assert table.prefilled(work.session).known == 5


def test_what_is_new_is_evaluated_with_logits_before_each_of_the_drafts_tokens_and_after_the_last(table):
    work = table.admit("a", draft(5, 6, 7)).work
    assert work.ids[work.num_evaluated :] == [5, 6, 7, 9]
    assert work.num_rows == 4


def test_an_audit_leaves_its_last_token_for_the_next_draft(table):
    work, _ = judge(table, draft(5, 6, 7, asks=False), Outcome.AUDITED)
    assert (work.ids[work.num_evaluated :], work.num_rows) == ([5, 6], 2)
    following = table.admit("a", draft(7, 8)).work
    assert following.ids[following.num_evaluated :] == [7, 8, 9]


def test_after_an_accepted_token_only_its_bonus_is_still_to_be_evaluated(table):
    judge(table, draft(5, 6, token_id=9), Outcome.ACCEPTED, token_id=50)
    session = table.find("a", 1)
    assert session.ids == [*PROMPT, 6, 9, 50]
    assert session.num_evaluated == 7


def test_a_recovered_token_takes_the_place_of_the_one_in_doubt_and_its_cache_is_forgotten(table):
    judge(table, draft(5, 6, token_id=9), Outcome.RECOVERED, token_id=50)
    session = table.find("a", 1)
    assert session.ids == [*PROMPT, 6, 50]
    assert session.num_evaluated == 6


def test_a_repeat_gets_the_same_verdict_and_no_work(table):
    _, verdict = judge(table, draft(5, 6))
    again = table.admit("a", draft(5, 6))
    assert again.work is None
    assert again.reply is verdict


def test_a_stale_epoch_is_dropped_before_the_model_runs(table):
    judge(table, draft(5, token_id=9), Outcome.RECOVERED)
    stale = table.admit("a", draft(6, 7))
    assert (stale.work, stale.reply, stale.reason) == (None, None, "stale epoch")


def test_a_higher_epoch_may_go_back_and_what_lies_behind_is_forgotten(table):
    judge(table, draft(5, 6, 7, token_id=9))
    work = table.admit("a", draft(6, 8, epoch=1)).work
    assert work.ids == [*PROMPT, 6, 8, 9]
    assert work.num_evaluated == 5  # the token before the draft is evaluated again, for the logits after it


def test_a_draft_of_the_same_epoch_must_begin_where_the_worker_ends(table):
    judge(table, draft(5, 6, 7, token_id=9))
    assert table.admit("a", draft(6, 8)).reply == Resync(1, 0, 9)


def test_a_gap_is_answered_with_how_far_the_worker_knows(table):
    assert table.admit("a", draft(8, 6, epoch=3)).reply == Resync(1, 3, 5)


def test_an_unknown_session_is_answered_with_nothing_known(table):
    assert table.admit("b", draft(5)).reply == Resync(1, 0, 0)


def test_an_agent_cannot_reach_another_agents_session_by_its_number(table):
    start(table, agent="b")
    table.admit("b", draft(5, token_id=9))
    assert table.find("a", 1).ids == list(PROMPT)


def test_a_token_outside_the_shared_vocabulary_is_refused_by_name(table):
    for sent in (draft(5, 100), draft(5, token_id=100)):
        reply = table.admit("a", sent).reply
        assert isinstance(reply, Refused)
        assert "token id 100 is outside the shared vocabulary of 100" in reply.reason


def test_what_outgrows_the_context_is_refused_by_name(table):
    assert isinstance(table.admit("a", draft(5, *range(10, 55))).reply, Refused)
    reply = table.open("a", opening(prompt=tuple(range(50))), set()).reply
    assert isinstance(reply, Refused)
    assert "50 tokens do not fit" in reply.reason


def test_a_final_draft_ends_the_session(table):
    judge(table, draft(5, 6, asks=False, final=True), Outcome.AUDITED)
    assert len(table) == 0


def test_a_final_draft_without_a_run_needs_no_evaluation(table):
    work, _ = judge(table, draft(5, asks=False, final=True), Outcome.AUDITED)
    assert work.ids[work.num_evaluated :] == []
    assert work.num_rows == 0


def test_a_full_table_evicts_the_longest_idle_session_and_reuses_its_place(table):
    second = start(table, agent="b")
    judge(table, draft(5))  # a is used after b was opened
    third = start(table, agent="c")
    assert table.find("b", 1) is None
    assert third.sequence == second.sequence
    assert table.num_evicted == 1
    assert table.admit("b", draft(5)).reply == Resync(1, 0, 0)


def test_sessions_at_work_are_never_evicted(table):
    busy = {table.find("a", 1), start(table, agent="b")}
    assert table.open("c", opening(), busy) is None
    assert len(table) == 2


def test_an_agent_that_has_gone_leaves_nothing_behind(table):
    start(table, agent="b")
    assert table.drop_agent("a") == 1
    assert [session.agent for session in table] == ["b"]


# ------------------------------------------------------------------------------------------ scheduling


def scheduler_of(table, *arrivals, max_tokens=100):
    scheduler = Scheduler(table, max_tokens)
    for agent, frame in arrivals:
        scheduler.add(Arrival(agent, frame, at_s=0.0))
    return scheduler


def test_a_batch_takes_one_piece_of_work_a_session_and_the_rest_in_order_later(table):
    first, second = draft(5, 6, asks=False), draft(6, 7)
    scheduler = scheduler_of(table, ("a", first), ("a", second))
    (work,) = scheduler.next_batch(0).work
    assert work.draft is first
    table.judged(work, Verdict(1, 0, 5, Outcome.AUDITED, None, b""))
    (work,) = scheduler.next_batch(0).work
    assert work.draft is second


def test_a_batch_gathers_all_sessions_up_to_its_tokens(table):
    start(table, agent="b")
    frames = [("a", draft(5, 6)), ("b", draft(5, 6))]
    assert len(scheduler_of(table, *frames).next_batch(0).work) == 2
    table.drop_agent("a"), table.drop_agent("b")
    start(table, agent="a"), start(table, agent="b")
    limited = scheduler_of(table, *frames, max_tokens=1)
    assert len(limited.next_batch(0).work) == 1
    assert len(limited) == 1


def test_a_draft_whose_agent_has_stopped_waiting_is_dropped(table):
    scheduler = scheduler_of(table, ("a", draft(5, deadline_ms=1000)))
    batch = scheduler.next_batch(1.01)
    assert batch.work == []
    assert [admission.reason for _, admission in batch.answered] == ["expired"]


def test_an_audit_never_expires(table):
    assert len(scheduler_of(table, ("a", draft(5, 6, asks=False))).next_batch(1e6).work) == 1


def test_an_opening_waits_while_all_sessions_are_at_work_and_its_drafts_wait_behind_it(table):
    start(table, agent="b")
    scheduler = scheduler_of(table, ("a", draft(5)), ("b", draft(5)), ("c", opening()), ("c", draft(5)))
    first = scheduler.next_batch(0)
    assert [work.session.agent for work in first.work] == ["a", "b"]
    assert first.answered == []
    assert [work.session.agent for work in scheduler.next_batch(0).work] == ["c"]
    assert len(scheduler) == 1
