"""The books of an answer: runs, verdicts in time and late, resyncs, sessions opened anew."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.ledger import Ledger, Origin
from schemas import codec
from schemas.audit import encode_betas
from schemas.compression import BodyCodec
from schemas.distribution import DraftToken, one_hot, quantise
from schemas.frames import MAX_RUN, Doubt, Draft, Outcome, Verdict

PROMPT = [10, 11, 12, 13, 14]


def opened(prompt=PROMPT):
    ledger = Ledger(prompt)
    assert ledger.open(3) == prompt
    return ledger


def skip(ledger, token_id, weight=200, uncertainty=0.1):
    ledger.commit(token_id, Origin.SKIPPED, draft=DraftToken(token_id, 0, weight), uncertainty=uncertainty)


def doubt(token_id=7):
    return Doubt(one_hot(token_id), 0, 1000)


def answer(draft: Draft, outcome, token_id=None, betas=None):
    betas = [0.0] * (draft.end - draft.position) if betas is None else betas
    return Verdict(
        draft.session, draft.epoch, draft.position, outcome, token_id, encode_betas(np.array(betas))
    )


def test_the_docstrings_example_a_prompt_of_five_two_skipped_one_in_doubt():
    ledger = opened()
    skip(ledger, 5)
    skip(ledger, 6)
    draft = ledger.ask(doubt())
    assert (draft.position, draft.run_ids, draft.end) == (5, (5, 6), 8)
    settled = ledger.settle(answer(draft, Outcome.ACCEPTED, token_id=9))
    assert settled is not None
    assert settled.in_time
    assert ledger.known == 9


def test_a_run_brings_its_weights_and_a_token_of_the_targets_own_counts_as_certain():
    ledger = opened()
    skip(ledger, 5, weight=17)
    ledger.commit(6, Origin.RECOVERED)
    assert ledger.ask(doubt()).run_weights == (17, 256)


def test_a_recovered_token_raises_the_epoch_and_the_next_run_starts_behind_it():
    ledger = opened()
    draft = ledger.ask(doubt())
    ledger.settle(answer(draft, Outcome.RECOVERED, token_id=8))
    ledger.commit(8, Origin.RECOVERED)
    skip(ledger, 5)
    following = ledger.ask(doubt())
    assert (following.epoch, following.position, following.run_ids) == (1, 6, (5,))


def test_after_a_miss_everything_since_the_last_settled_position_is_sent_again_in_a_new_epoch():
    ledger = opened()
    skip(ledger, 5)
    missed = ledger.ask(doubt())
    ledger.miss()
    ledger.commit(7, Origin.UNVERIFIED, draft=DraftToken(7, 0, 256), uncertainty=0.9)
    following = ledger.ask(doubt(4))
    assert (following.epoch, following.position) == (missed.epoch + 1, missed.position)
    assert following.run_ids == (5, 7)


def test_a_late_verdict_counts_for_the_audit_alone():
    ledger = opened()
    skip(ledger, 5)
    missed = ledger.ask(doubt())
    ledger.miss()
    ledger.commit(7, Origin.UNVERIFIED, draft=DraftToken(7, 0, 256), uncertainty=0.9)
    settled = ledger.settle(answer(missed, Outcome.RECOVERED, token_id=8, betas=[0.25, 1.0]))
    assert settled is not None
    assert not settled.in_time
    assert ledger.epoch == 1
    assert ledger.known == 5
    assert [record.beta for record in ledger.records] == pytest.approx([0.25, 1.0], abs=0.005)


def test_a_beta_is_entered_once_however_often_it_comes():
    ledger = opened()
    skip(ledger, 5)
    first = ledger.ask(doubt())
    ledger.miss()
    second = ledger.ask(doubt())
    assert ledger.settle(answer(second, Outcome.ACCEPTED, 9, betas=[0.5, 0.0])) is not None
    # The second draft covered the first one, so that is no longer waited for.
    assert ledger.settle(answer(first, Outcome.ACCEPTED, 9, betas=[1.0, 0.0])) is None
    assert not ledger.awaits_audit
    assert ledger.records[0].beta == pytest.approx(0.5, abs=0.01)


def test_an_audit_moves_on_at_once_and_is_settled_whenever_it_is_answered():
    ledger = opened()
    skip(ledger, 5)
    audit = ledger.audit(final=False)
    assert ledger.known == 6
    assert ledger.awaits_audit
    skip(ledger, 6)
    asked = ledger.ask(doubt())
    assert asked.position == 6
    assert ledger.settle(answer(asked, Outcome.ACCEPTED, 9)) is not None
    assert ledger.settle(answer(audit, Outcome.AUDITED, betas=[0.1])) is not None
    assert not ledger.awaits_audit


@pytest.mark.parametrize(
    "change",
    [
        {"session": 4},
        {"epoch": 1},
        {"position": 6},
        {"betas": b""},
        {"betas": b"\0\0\0"},
        {"outcome": Outcome.AUDITED, "token_id": None},
    ],
    ids=str,
)
def test_a_verdict_that_fits_no_draft_changes_nothing(change):
    ledger = opened()
    skip(ledger, 5)
    verdict = answer(ledger.ask(doubt()), Outcome.RECOVERED, token_id=8)
    before = (ledger.epoch, ledger.known)
    fields = {name: getattr(verdict, name) for name in verdict.__dataclass_fields__}
    assert ledger.settle(Verdict(**(fields | change))) is None
    assert (ledger.epoch, ledger.known) == before


def test_a_resync_goes_back_to_what_the_worker_knows():
    ledger = opened()
    for token_id in range(4):
        skip(ledger, token_id)
    ledger.audit(final=False)
    assert ledger.resync(6)
    assert not ledger.awaits_audit
    draft = ledger.ask(doubt())
    assert (draft.epoch, draft.position, draft.run_ids) == (1, 6, (1, 2, 3))


def test_a_worker_that_knows_not_even_the_prompt_needs_a_new_session():
    assert not opened().resync(0)


def test_a_session_opened_anew_leaves_what_is_unaudited_to_the_next_run():
    ledger = opened()
    skip(ledger, 5)
    ledger.audit(final=False)  # sent, but never answered
    skip(ledger, 6)
    assert ledger.open(4) == PROMPT
    draft = ledger.ask(doubt())
    assert (draft.session, draft.epoch, draft.position, draft.run_ids) == (4, 0, 5, (5, 6))


def test_quantised_weights_travel_as_they_were_drawn():
    q_hat = quantise(np.array([0.6, 0.4]), np.array([3, 9]))
    draft = opened().ask(Doubt(q_hat, 1, 1000))
    assert draft.doubt is not None
    assert (draft.doubt.token_id, draft.doubt.weight) == (9, 102)


def test_a_late_verdict_that_comes_first_keeps_its_betas_when_the_next_one_brings_them_again():
    ledger = opened()
    skip(ledger, 5)
    first = ledger.ask(doubt())
    ledger.miss()
    ledger.commit(7, Origin.UNVERIFIED, draft=DraftToken(7, 0, 256), uncertainty=0.9)
    second = ledger.ask(doubt())
    assert ledger.settle(answer(first, Outcome.ACCEPTED, 9, betas=[0.25, 0.0])) is not None
    assert ledger.settle(answer(second, Outcome.ACCEPTED, 9, betas=[1.0, 0.0, 0.0])) is not None
    assert ledger.records[0].beta == pytest.approx(0.25, abs=0.005)


def test_a_missed_draft_is_waited_for_no_more_once_a_later_one_has_settled_its_tokens():
    ledger = opened()
    skip(ledger, 5)
    ledger.ask(doubt())
    ledger.miss()
    ledger.commit(7, Origin.UNVERIFIED, draft=DraftToken(7, 0, 256), uncertainty=0.9)
    second = ledger.ask(doubt())
    assert ledger.settle(answer(second, Outcome.ACCEPTED, 9)) is not None
    assert not ledger.awaits_audit
    ledger.commit(7, Origin.ACCEPTED)
    ledger.commit(9, Origin.BONUS)
    assert ledger.open(4) == [*PROMPT, 5, 7, 7, 9]


def test_a_settled_draft_leaves_those_under_way_that_it_does_not_cover():
    ledger = opened()
    skip(ledger, 5)
    audit = ledger.audit(final=False)  # position 5
    skip(ledger, 6)
    asked = ledger.ask(doubt())  # position 6
    assert ledger.settle(answer(asked, Outcome.RECOVERED, 8)) is not None
    assert ledger.settle(answer(audit, Outcome.AUDITED, betas=[0.5])) is not None


def test_a_worker_that_has_forgotten_the_session_costs_no_second_audit_of_what_is_settled():
    ledger = opened()
    for token_id in range(40):
        skip(ledger, token_id)
    audit = ledger.audit(final=False)
    assert ledger.settle(answer(audit, Outcome.AUDITED)) is not None
    skip(ledger, 41)
    ledger.ask(doubt())
    assert not ledger.resync(0)
    assert ledger.open(4) == [*PROMPT, *range(40)]
    assert ledger.ask(doubt()).run_ids == (41,)


def test_a_worker_that_forgot_the_session_while_an_audit_was_under_way_gets_that_run_again():
    ledger = opened()
    for token_id in range(40):
        skip(ledger, token_id)
    ledger.audit(final=False)  # lost with the session
    skip(ledger, 41)
    ledger.ask(doubt())
    assert not ledger.resync(0)
    assert ledger.open(4) == PROMPT
    assert ledger.ask(doubt()).run_ids == (*range(40), 41)


@pytest.mark.parametrize("known", range(5))
def test_whatever_a_worker_claims_to_know_a_new_session_starts_with_the_whole_prompt(known):
    ledger = opened()
    for token_id in range(20, 30):
        skip(ledger, token_id)
    assert not ledger.resync(known)
    assert ledger.open(4) == PROMPT
    assert ledger.ask(doubt()).run_ids == tuple(range(20, 30))


def test_a_resync_beyond_what_was_sent_is_believed_only_as_far_as_that():
    ledger = opened()
    skip(ledger, 5)
    assert ledger.resync(100)
    assert ledger.ask(doubt()).position == 5


def test_after_an_outage_a_session_is_opened_with_a_run_that_a_draft_can_hold():
    ledger = opened()
    for _ in range(3 * MAX_RUN):
        skip(ledger, 5)
    prompt = ledger.open(4)
    draft = ledger.ask(doubt())
    assert len(prompt) == draft.position
    assert len(prompt) + len(draft.run_ids) == len(ledger.ids)
    assert len(draft.run_ids) <= MAX_RUN // 2
    sent = codec.encode_draft(draft, BodyCodec())
    assert codec.decode_draft(sent, BodyCodec()).run_ids == draft.run_ids


def test_a_bonus_token_that_the_answer_has_no_room_for_is_in_no_new_session():
    ledger = opened()
    draft = ledger.ask(doubt())
    ledger.settle(answer(draft, Outcome.ACCEPTED, token_id=9))
    ledger.commit(7, Origin.ACCEPTED)  # the last one, so the bonus token is let go
    assert ledger.known == len(ledger.ids) + 1
    assert ledger.audit(final=True).run_ids == ()
    assert ledger.open(4) == [*PROMPT, 7]
    assert ledger.audit(final=True).position == 6


def test_books_that_were_never_opened_know_of_no_more_than_the_prompt():
    ledger = Ledger(PROMPT)
    assert ledger.num_pending == 0
    skip(ledger, 5)
    assert ledger.num_pending == 1


def after_a_miss():
    """A prompt of 5, an asked token at 5 whose verdict did not come, and one skipped token."""
    ledger = opened()
    ledger.ask(doubt())
    ledger.miss()
    ledger.commit(7, Origin.UNVERIFIED, draft=DraftToken(7, 0, 256), uncertainty=0.9)
    skip(ledger, 20)
    return ledger


def test_after_a_miss_an_audit_moves_nothing_before_it_is_answered():
    # The worker may hold another token at 5; were the audit lost, a draft from 7 on would follow on that one.
    ledger = after_a_miss()
    audit = ledger.audit(final=False)
    assert (audit.epoch, audit.position, audit.run_ids) == (1, 5, (7, 20))
    assert ledger.known == 5
    assert ledger.settle(answer(audit, Outcome.AUDITED)) is not None
    assert ledger.known == 7
    assert ledger.ask(doubt()).position == 7


def test_what_an_audit_brought_is_pending_no_more_even_while_it_is_not_confirmed():
    ledger = after_a_miss()
    assert ledger.num_pending == 2
    ledger.audit(final=False)
    assert ledger.num_pending == 0
    skip(ledger, 21)
    assert ledger.num_pending == 1


def test_a_question_that_does_not_wait_for_the_audit_brings_its_run_again_in_an_epoch_of_its_own():
    ledger = after_a_miss()
    audit = ledger.audit(final=False)
    skip(ledger, 21)
    asked = ledger.ask(doubt())
    assert (asked.epoch, asked.position, asked.run_ids) == (audit.epoch + 1, 5, (7, 20, 21))
    assert ledger.settle(answer(audit, Outcome.AUDITED)) is not None  # late now: it moves nothing
    assert ledger.known == 5
    settled = ledger.settle(answer(asked, Outcome.ACCEPTED, 9))
    assert settled is not None
    assert settled.in_time
    assert ledger.known == 10  # 5, a run of three, the accepted token, the bonus token


def test_once_a_draft_of_the_new_epoch_is_answered_audits_move_on_at_once_again():
    ledger = after_a_miss()
    assert ledger.settle(answer(ledger.ask(doubt()), Outcome.RECOVERED, 8)) is not None
    ledger.commit(8, Origin.RECOVERED)
    skip(ledger, 21)
    ledger.audit(final=False)
    assert ledger.known == 9


def test_after_a_miss_a_resync_goes_back_to_before_what_was_missed_however_much_the_worker_knows():
    ledger = after_a_miss()
    ledger.audit(final=False)
    assert ledger.resync(6)  # the recovered token at 5 that we never saw
    asked = ledger.ask(doubt())
    assert (asked.position, asked.run_ids) == (5, (7, 20))


def test_a_session_opened_anew_has_nothing_to_be_confirmed():
    ledger = after_a_miss()
    ledger.audit(final=False)
    ledger.open(4)
    audit = ledger.audit(final=False)
    assert (audit.epoch, audit.run_ids) == (0, (7, 20))
    assert ledger.known == 7


def test_a_run_whose_audit_was_lost_comes_again_with_the_next_draft():
    ledger = opened()
    skip(ledger, 5)
    ledger.audit(final=False)  # position 5, lost
    skip(ledger, 6)
    asked = ledger.ask(doubt())
    assert asked.position == 6
    assert ledger.settle(answer(asked, Outcome.ACCEPTED, 9)) is not None
    assert not ledger.awaits_audit  # the worker answers in order
    ledger.commit(7, Origin.ACCEPTED, draft=DraftToken(7, 0, 256), uncertainty=0.9)
    ledger.commit(9, Origin.BONUS)
    again = ledger.ask(doubt())
    assert (again.epoch, again.position, again.run_ids) == (1, 5, (5, 6, 7, 9))
    verdict = answer(again, Outcome.ACCEPTED, 3, betas=[0.25, 1.0, 1.0, 1.0, 0.0])
    assert ledger.settle(verdict) is not None
    assert [record.beta for record in ledger.records[:3]] == pytest.approx([0.25, 0.0, 1.0], abs=0.01)
    assert ledger.known == 11
    assert ledger.ask(doubt()).position == 11


def test_a_run_is_not_sent_again_while_a_verdict_is_waited_for():
    ledger = opened()
    skip(ledger, 5)
    ledger.audit(final=False)  # lost
    skip(ledger, 6)
    second = ledger.audit(final=False)
    skip(ledger, 7)
    asked = ledger.ask(doubt())
    assert ledger.settle(answer(second, Outcome.AUDITED)) is not None
    settled = ledger.settle(answer(asked, Outcome.RECOVERED, 8))
    assert settled is not None
    assert settled.in_time
    ledger.commit(8, Origin.RECOVERED)
    assert ledger.ask(doubt()).run_ids == (5, 6, 7, 8)


def test_the_last_draft_of_an_answer_brings_what_was_lost_before_it():
    ledger = opened()
    skip(ledger, 5)
    ledger.audit(final=False)  # lost
    skip(ledger, 6)
    assert ledger.settle(answer(ledger.audit(final=False), Outcome.AUDITED)) is not None
    last = ledger.audit(final=True)
    assert (last.position, last.run_ids) == (5, (5, 6))
    assert ledger.settle(answer(last, Outcome.AUDITED)) is not None
    assert not ledger.awaits_audit
