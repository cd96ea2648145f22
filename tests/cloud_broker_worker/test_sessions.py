"""Sessions and their rules (docs/protocol.md, "Who knows what"): judged, repeated, dropped, resynced, evicted."""

# A None where there should be work fails a test by itself: no assertion is needed before each look.
# mypy: disable-error-code="union-attr,list-item,arg-type,possibly-undefined"

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

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
    table = table_of(2)
    start(table)
    return table


def table_of(max_sessions, n_ctx=50):
    return SessionTable(max_sessions, n_ctx)


def start(table, agent="a", session=1, prompt=PROMPT):
    work = table.open(agent, opening(session, prompt), set()).work
    table.prefilled(work)
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
    assert table.prefilled(work).known == 5


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


def test_the_docstrings_example_seven_known_six_evaluated_two_in_the_run_and_one_in_doubt():
    table = table_of(1)
    start(table, prompt=tuple(range(7)))
    work = table.admit("a", draft(7, 20, 21, token_id=22)).work
    assert work.num_evaluated == 6
    assert work.ids[work.num_evaluated :] == [6, 20, 21, 22]
    assert work.num_rows == 4


def test_the_protocol_pages_example_of_an_answer_from_open_to_final_audit(table):
    judge(table, draft(5, 20, 21), Outcome.ACCEPTED)
    assert len(table.find("a", 1).ids) == 9
    judge(table, draft(9), Outcome.RECOVERED)
    assert len(table.find("a", 1).ids) == 10
    judge(table, draft(10, 22, 23, 24, epoch=1), Outcome.ACCEPTED)  # this verdict gets lost
    assert len(table.find("a", 1).ids) == 15
    work, _ = judge(table, draft(10, 22, 23, 24, 9, 25, epoch=2), Outcome.ACCEPTED)
    assert work.ids[work.num_evaluated :] == [50, 22, 23, 24, 9, 25, 9]
    assert len(table.find("a", 1).ids) == 17
    judge(table, draft(17, 26, 27, epoch=2, asks=False, final=True), Outcome.AUDITED)
    assert table.find("a", 1) is None


def test_while_a_verdict_is_being_made_its_draft_is_neither_judged_nor_answered_again(table):
    assert table.admit("a", draft(5, 6)).work is not None
    again = table.admit("a", draft(5, 6))
    assert (again.work, again.reply, again.reason) == (None, None, "repeated")


def test_a_recovered_token_makes_its_own_epoch_stale_and_an_accepted_one_does_not(table):
    judge(table, draft(5), Outcome.ACCEPTED)
    assert table.admit("a", draft(7)).work is not None
    other = start(table, agent="b")
    judge(table, draft(5), Outcome.RECOVERED, agent="b")
    assert table.admit("b", draft(6)).reason == "stale epoch"
    assert table.admit("b", draft(6, epoch=1)).work is not None
    assert other.num_evaluated == 5


def test_the_first_draft_of_a_session_must_begin_where_the_prompt_ends_whatever_its_epoch(table):
    assert table.admit("a", draft(4, epoch=7)).reply == Resync(1, 7, 5)
    assert table.admit("a", draft(5, epoch=7)).work is not None


def test_a_higher_epoch_may_go_back_into_the_prompt_but_never_beyond_what_is_known(table):
    judge(table, draft(5))
    assert table.admit("a", draft(8, epoch=1)).reply == Resync(1, 1, 7)
    work = table.admit("a", draft(1, epoch=1)).work
    assert (work.ids, work.num_evaluated) == ([1, 9], 0)


def test_what_does_not_follow_changes_nothing(table):
    judge(table, draft(5, 6, token_id=9))
    session = table.find("a", 1)
    before = (list(session.ids), session.num_evaluated, session.floor, session.last_draft)
    for sent in (
        draft(20),
        draft(6, 6),
        draft(50, epoch=4),
        draft(8, 100),
        draft(8, *range(60)),
        draft(8, token_id=100),
    ):
        assert table.admit("a", sent).work is None
        assert (session.ids, session.num_evaluated, session.floor, session.last_draft) == before


def test_a_resync_and_the_draft_after_it_bring_both_ends_together_again(table):
    # The audit of 6 and 7 was lost on its way, so the next draft leaves a gap.
    reply = table.admit("a", draft(7, 8)).reply
    assert reply == Resync(1, 0, 5)
    work = table.admit("a", draft(reply.known, 6, 7, 8, epoch=1)).work
    assert work.ids == [*PROMPT, 6, 7, 8, 9]


def test_an_opening_that_comes_twice_starts_the_session_anew(table):
    judge(table, draft(5, 6))
    session = start(table)
    assert (session.ids, session.floor, session.last_draft) == (list(PROMPT), 0, None)
    assert len(table) == 1
    assert table.num_evicted == 0


def test_an_agent_may_have_sessions_of_several_numbers(table):
    start(table, session=2)
    judge(table, draft(5, 6))
    assert table.find("a", 2).ids == list(PROMPT)
    assert table.drop_agent("a") == 2


def test_a_prompt_of_one_token_needs_no_evaluation_before_its_first_draft(table):
    work = table.open("a", opening(2, prompt=(7,)), set()).work
    assert (work.ids, work.num_evaluated, work.num_rows) == ([], 0, 0)
    assert table.prefilled(work).known == 1
    work = table.admit("a", draft(1, session=2)).work
    assert (work.ids, work.num_evaluated, work.num_rows) == ([7, 9], 0, 2)


def test_an_audit_without_a_run_asks_the_model_for_nothing_and_forgets_nothing(table):
    judge(table, draft(5, 6, token_id=9))
    session = table.find("a", 1)
    before = (list(session.ids), session.num_evaluated)
    work, _ = judge(table, draft(8, asks=False), Outcome.AUDITED)
    assert work.ids[work.num_evaluated :] == []
    assert (session.ids, session.num_evaluated) == before


def test_an_answer_may_fill_the_context_to_its_last_token(table):
    judge(table, draft(5, *[6] * 43, token_id=9))  # 49 tokens, and a bonus one
    assert len(table.find("a", 1).ids) == table.n_ctx
    reply = table.admit("a", draft(50)).reply
    assert isinstance(reply, Refused)
    assert "outgrew the target model's context of 50" in reply.reason


def test_idle_is_who_was_longest_without_a_frame_even_one_that_led_to_nothing(table):
    start(table, agent="b")
    table.admit("a", draft(30))  # only a resync, but a sign of life
    start(table, agent="c")
    assert [session.agent for session in table] == ["a", "c"]


def test_every_session_has_a_sequence_of_its_own_however_they_come_and_go():
    table = table_of(3)
    for step in range(40):
        agent = f"agent-{step * 7 % 5}"
        if step % 4 == 3:
            table.drop_agent(agent)
        else:
            start(table, agent=agent)
        sequences = [session.sequence for session in table]
        assert len(set(sequences)) == len(sequences) <= 3
        assert set(sequences) <= {0, 1, 2}


def test_a_dropped_session_is_gone_and_dropping_it_again_does_nothing(table):
    session = table.find("a", 1)
    table.drop(session)
    assert table.find("a", 1) is None
    table.drop(session)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2), st.integers(0, 3), st.sampled_from(Outcome)))
)
def test_whatever_an_agent_sends_the_cache_never_holds_all_that_is_known(steps):
    table = table_of(1, n_ctx=400)
    session = start(table)
    for epoch_step, position_step, run_length, outcome in steps:
        asks = outcome is not Outcome.AUDITED
        last_epoch = session.last_draft[0] if session.last_draft else 0
        position = max(1, len(session.ids) + position_step)
        work = table.admit(
            "a", draft(position, *[6] * run_length, epoch=last_epoch + epoch_step, asks=asks)
        ).work
        if work is None:
            continue
        assert work.num_rows <= len(work.ids) - work.num_evaluated
        token_id = 50 if asks else None
        table.judged(work, Verdict(1, work.draft.epoch, position, outcome, token_id, b""))
        assert 0 <= session.num_evaluated < len(session.ids)
        # What is said to be cached is what the model was shown, token for token.
        assert work.ids[: session.num_evaluated] == session.ids[: session.num_evaluated]
