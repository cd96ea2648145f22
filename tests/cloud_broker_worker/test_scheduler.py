"""What is evaluated next: one piece of work a session and batch, up to a number of tokens, in order."""

# A None where there should be work fails a test by itself: no assertion is needed before each look.
# mypy: disable-error-code="union-attr,list-item,arg-type,possibly-undefined"

from __future__ import annotations

import pytest

from cloud_broker_worker.scheduler import Arrival, Scheduler
from cloud_broker_worker.sessions import SessionTable
from schemas.distribution import one_hot
from schemas.frames import Doubt, Draft, Open, Outcome, Ready, Resync, Verdict
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

PROMPT = (1, 2, 3, 4, 5)


def opening(session=1, prompt=PROMPT):
    return Open(session, Fingerprint(100, bytes(16)), SamplingParameters(), 0, 500, prompt)


def audit(position, *run, epoch=0, session=1):
    return Draft(session, epoch, position, run, (256,) * len(run), None)


def ask(position, *run, epoch=0, session=1, deadline_ms=1000):
    return Draft(session, epoch, position, run, (256,) * len(run), Doubt(one_hot(9), 0, deadline_ms))


def table_with(*agents, max_sessions=4):
    table = SessionTable(max_sessions, n_ctx=50)
    for agent in agents:
        start(table, agent)
    return table


def start(table, agent, session=1):
    table.prefilled(table.open(agent, opening(session), set()).work)


def scheduler_of(table, *arrivals, max_tokens=100):
    scheduler = Scheduler(table, max_tokens)
    for agent, frame in arrivals:
        scheduler.add(Arrival(agent, frame, at_s=0.0))
    return scheduler


def judged(table, batch):
    """Enter an accepted verdict for each piece of work, and return whose they were."""
    for work in batch.work:
        if work.draft is None:
            table.prefilled(work)
            continue
        outcome, token_id = (Outcome.AUDITED, None) if work.draft.doubt is None else (Outcome.ACCEPTED, 50)
        verdict = Verdict(1, work.draft.epoch, work.draft.position, outcome, token_id, b"")
        table.judged(work, verdict)
    return [work.session.agent for work in batch.work]


def test_nothing_waits_and_nothing_is_done():
    scheduler = scheduler_of(table_with())
    assert len(scheduler) == 0
    assert scheduler.next_batch(0).work == []


def test_a_batch_takes_one_piece_of_work_a_session_and_the_rest_in_order_later():
    table = table_with("a")
    first, second = audit(5, 6), ask(6, 7)
    scheduler = scheduler_of(table, ("a", first), ("a", second))
    batch = scheduler.next_batch(0)
    assert [work.draft for work in batch.work] == [first]
    judged(table, batch)
    assert [work.draft for work in scheduler.next_batch(0).work] == [second]
    assert len(scheduler) == 0


def test_frames_of_a_session_are_never_overtaken_by_later_ones():
    table = table_with("a", "b")
    frames = [("a", audit(5, 6)), ("a", audit(6, 7)), ("b", audit(5, 6)), ("a", audit(7, 8)), ("b", ask(6))]
    scheduler = scheduler_of(table, *frames)
    done = []
    while len(scheduler):
        batch = scheduler.next_batch(0)
        assert batch.answered == []
        done.append([(work.session.agent, work.draft.position) for work in batch.work])
        judged(table, batch)
    assert done == [[("a", 5), ("b", 5)], [("a", 6), ("b", 6)], [("a", 7)]]


def test_sessions_of_one_agent_are_evaluated_side_by_side():
    table = table_with("a")
    start(table, "a", session=2)
    scheduler = scheduler_of(table, ("a", ask(5)), ("a", ask(5, session=2)))
    assert len(scheduler.next_batch(0).work) == 2


def test_a_batch_gathers_all_sessions_up_to_its_tokens():
    frames = [("a", ask(5, 6)), ("b", ask(5, 6)), ("c", ask(5, 6))]  # 3 tokens each
    for max_tokens, sizes in [(9, [3]), (8, [2, 1]), (6, [2, 1]), (5, [1, 1, 1]), (3, [1, 1, 1])]:
        table = table_with("a", "b", "c")
        scheduler = scheduler_of(table, *frames, max_tokens=max_tokens)
        batches = []
        while len(scheduler):
            batch = scheduler.next_batch(0)
            evaluated = sum(len(work.ids) - work.num_evaluated for work in batch.work)
            assert evaluated <= max_tokens
            batches.append(judged(table, batch))
        assert [len(agents) for agents in batches] == sizes
        assert [agent for agents in batches for agent in agents] == ["a", "b", "c"]


def test_a_run_larger_than_a_batch_is_done_alone_and_holds_up_no_work_before_it():
    table = table_with("a", "b", "c")
    long_run = ask(5, *range(20))
    scheduler = scheduler_of(table, ("a", ask(5)), ("c", long_run), ("b", ask(5)), max_tokens=10)
    done = []
    while len(scheduler):
        done.append(judged(table, scheduler.next_batch(0)))
    assert done == [["a"], ["c"], ["b"]]


LONG = tuple(range(40))


def test_a_prompt_is_taken_in_by_pieces_beside_the_drafts_of_others():
    table = table_with("a", "b")
    scheduler = scheduler_of(
        table, ("c", opening(prompt=LONG)), ("a", ask(5)), ("c", ask(40)), ("b", ask(5)), max_tokens=20
    )
    sizes, at = [], {"a": 5, "b": 5}
    for _ in range(3):
        batch = scheduler.next_batch(0)
        sizes.append({work.session.agent: work.num_tokens for work in batch.work})
        for agent in judged(table, batch):
            if agent in at:
                at[agent] += 2
                scheduler.add(Arrival(agent, ask(at[agent]), 0.0))
    # What drafts leave of 20; a prompt's last token is evaluated with its first draft, which has waited.
    assert sizes == [
        {"a": 2, "b": 2, "c": 16},
        {"a": 2, "b": 2, "c": 16},
        {"a": 2, "b": 2, "c": 7},
    ]
    batch = scheduler.next_batch(0)
    assert {work.session.agent: work.num_tokens for work in batch.work}["c"] == 2


def test_readiness_is_told_once_the_whole_prompt_is_in():
    table = table_with("a")
    scheduler = scheduler_of(table, ("c", opening(prompt=LONG)), max_tokens=16)
    told = []
    while len(scheduler):
        (work,) = scheduler.next_batch(0).work
        told.append(table.prefilled(work))
    assert told == [None, None, Ready(1, 40)]


def test_prompts_get_equal_shares_and_a_short_one_does_not_wait_for_the_long_ones_before_it():
    table = table_with("z")
    scheduler = scheduler_of(
        table, ("a", opening(prompt=LONG)), ("b", opening(prompt=LONG)), ("c", opening()), max_tokens=44
    )
    sizes = []
    while len(scheduler):
        batch = scheduler.next_batch(0)
        sizes.append({work.session.agent: work.num_tokens for work in batch.work})
        judged(table, batch)
    assert sizes == [{"c": 4, "a": 20, "b": 20}, {"a": 19, "b": 19}]


def test_a_prompt_gets_on_even_where_drafts_take_the_whole_budget():
    table = table_with("a", "b")
    scheduler = scheduler_of(
        table, ("c", opening(prompt=LONG)), ("a", ask(5, 6)), ("b", ask(5, 6)), max_tokens=6
    )
    assert [(w.session.agent, w.num_tokens) for w in scheduler.next_batch(0).work] == [
        ("a", 3),
        ("b", 3),
        ("c", 6),
    ]


def _largest_piece(scheduler, table, agent):
    scheduler.add(Arrival(agent, opening(prompt=tuple(range(4000))), 0.0))
    return max(work.num_tokens for work in scheduler.next_batch(0).work)


def test_pieces_are_as_long_as_other_sessions_can_wait_and_whole_where_there_is_none():
    table = SessionTable(4, n_ctx=5000)
    start(table, "a")
    scheduler = scheduler_of(table, ("b", opening(prompt=tuple(range(4000)))), max_tokens=512)
    sizes = []
    for tokens_per_s in [100, 100, 100, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6, 1e6]:
        batch = scheduler.next_batch(0)
        sizes.append(batch.work[0].num_tokens)
        judged(table, batch)
        scheduler.evaluated(batch, batch.work[0].num_tokens / tokens_per_s)
    # A quarter of a second is 25 tokens at 100 a second; a fast model is believed step by step.
    assert sizes == [64, 16, 16, 16, 32, 64, 128, 256, 512, 512]
    assert (
        _largest_piece(scheduler_of(alone := SessionTable(4, n_ctx=5000), max_tokens=512), alone, "b") == 512
    )


def test_a_session_whose_number_is_opened_anew_takes_in_the_new_prompt_alone():
    table = table_with("a")
    scheduler = scheduler_of(table, ("c", opening(prompt=LONG)), max_tokens=16)
    judged(table, scheduler.next_batch(0))
    table.drop_agent("c")
    assert scheduler.next_batch(0).work == []
    scheduler.add(Arrival("c", opening(), 0.0))
    assert [work.ids for work in scheduler.next_batch(0).work] == [[1, 2, 3, 4]]
    assert len(scheduler) == 0


def test_a_prompt_that_is_being_taken_in_does_not_give_way_to_another():
    table = table_with(max_sessions=2)
    scheduler = scheduler_of(
        table,
        ("a", opening(prompt=LONG)),
        ("b", opening(prompt=LONG)),
        ("c", opening(prompt=LONG)),
        max_tokens=16,
    )
    done = []
    while len(scheduler):
        done += judged(table, scheduler.next_batch(0))
    assert table.num_evicted == 1
    assert "".join(done).rstrip("c") == "ab" * 5  # 39 tokens by eights; then "c" takes the place of one


@pytest.mark.parametrize(
    ("frame", "num_tokens"),
    [(ask(5), 2), (ask(5, 6, 7), 4), (audit(5, 6, 7), 2), (audit(5), 0)],
)
def test_no_frame_is_taken_for_smaller_than_it_is(frame, num_tokens):
    scheduler = scheduler_of(table_with("a"), ("a", frame))
    (work,) = scheduler.next_batch(0).work
    assert len(work.ids) - work.num_evaluated == num_tokens
    assert num_tokens <= Arrival("a", frame, 0.0).num_tokens <= num_tokens + 2


def test_a_draft_whose_agent_has_stopped_waiting_is_dropped_before_any_session_knows_of_it():
    table = table_with("a")
    scheduler = scheduler_of(table, ("a", ask(5, deadline_ms=1000)))
    batch = scheduler.next_batch(1.01)
    assert batch.work == []
    assert [(agent, admission.reason) for agent, admission in batch.answered] == [("a", "expired")]
    assert batch.answered[0][1].reply is None
    assert table.find("a", 1).last_draft is None


def test_a_draft_is_judged_up_to_its_deadline_and_no_later():
    for now_s, num_work in [(0.0, 1), (1.0, 1), (1.001, 0)]:
        scheduler = scheduler_of(table_with("a"), ("a", ask(5, deadline_ms=1000)))
        assert len(scheduler.next_batch(now_s).work) == num_work


def test_audits_and_openings_never_expire():
    scheduler = scheduler_of(table_with("a"), ("a", audit(5, 6)), ("b", opening()))
    assert len(scheduler.next_batch(1e6).work) == 2


def test_what_needs_no_model_is_answered_even_where_a_batch_is_full():
    table = table_with("a")
    scheduler = scheduler_of(table, ("ghost", ask(5)), ("a", ask(5)), ("ghost", audit(5)), max_tokens=2)
    batch = scheduler.next_batch(0)
    assert [work.session.agent for work in batch.work] == ["a"]
    assert [admission.reply for _, admission in batch.answered] == [Resync(1, 0, 0)]


def test_a_repeat_waits_for_the_verdict_that_it_repeats():
    table = table_with("a")
    scheduler = scheduler_of(table, ("a", ask(5)), ("a", ask(5)))
    batch = scheduler.next_batch(0)
    assert (len(batch.work), batch.answered) == (1, [])
    judged(table, batch)
    batch = scheduler.next_batch(0)
    assert batch.work == []
    (answered,) = batch.answered
    assert isinstance(answered[1].reply, Verdict)


def test_an_opening_and_its_first_draft_come_one_after_the_other():
    table, first = table_with(), ask(5)
    scheduler = scheduler_of(table, ("a", opening()), ("a", first))
    batch = scheduler.next_batch(0)
    assert [work.draft for work in batch.work] == [None]
    judged(table, batch)
    assert [work.draft for work in scheduler.next_batch(0).work] == [first]


def test_an_opening_waits_while_all_sessions_are_at_work_and_its_drafts_wait_behind_it():
    table = table_with("a", "b", max_sessions=2)
    scheduler = scheduler_of(table, ("a", ask(5)), ("b", ask(5)), ("c", opening()), ("c", ask(5)))
    first = scheduler.next_batch(0)
    assert judged(table, first) == ["a", "b"]
    assert first.answered == []
    second = scheduler.next_batch(0)
    assert judged(table, second) == ["c"]
    assert second.answered == []
    assert judged(table, scheduler.next_batch(0)) == ["c"]


def test_a_session_that_gave_way_to_another_learns_it_with_its_next_draft():
    table = table_with("a", max_sessions=1)
    scheduler = scheduler_of(table, ("b", opening()), ("a", ask(5)))
    batch = scheduler.next_batch(0)
    assert [work.session.agent for work in batch.work] == ["b"]
    assert [(agent, admission.reply) for agent, admission in batch.answered] == [("a", Resync(1, 0, 0))]


def test_no_agent_waits_for_ever_behind_busier_ones():
    table = table_with("a", "b", "c")
    scheduler = Scheduler(table, max_tokens=4)  # room for two
    positions = dict.fromkeys("abc", 5)
    served = dict.fromkeys("abc", 0)
    for agent in "abc":
        scheduler.add(Arrival(agent, ask(5), 0.0))
    for _ in range(12):
        for agent in judged(table, scheduler.next_batch(0)):
            served[agent] += 1
            positions[agent] += 2
            if positions[agent] < 45:
                scheduler.add(Arrival(agent, ask(positions[agent]), 0.0))
    assert max(served.values()) - min(served.values()) <= 1
