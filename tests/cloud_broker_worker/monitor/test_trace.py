"""What the frames of an answer tell of its tokens, and what they cannot tell."""

from __future__ import annotations

import numpy as np

from cloud_broker_worker.monitor.trace import MAX_TOKENS, Origin, Trace
from schemas.audit import encode_betas
from schemas.distribution import TruncatedDistribution
from schemas.frames import MAX_POSITION, MAX_RUN, Doubt, Draft, Open, Outcome, Resync, Verdict
from schemas.messages import Usage
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

S, A, R, B, U = Origin.SKIPPED, Origin.ACCEPTED, Origin.RECOVERED, Origin.BONUS, Origin.UNVERIFIED
PROMPT = (1, 2, 3, 4, 5)


def opening(session=1, ids=PROMPT, seed=7) -> Open:
    return Open(session, Fingerprint(1000, bytes(16)), SamplingParameters(), seed, 200, ids)


def draft(position, run=(), doubt=None, *, epoch=0, session=1, final=False) -> Draft:
    q_hat = TruncatedDistribution(np.array([doubt or 0], np.int32), np.array([256], np.uint16))
    asked = None if doubt is None else Doubt(q_hat, 0, 1000)
    return Draft(session, epoch, position, tuple(run), (256,) * len(run), asked, final)


def verdict(of: Draft, outcome: Outcome, token_id=None, betas=None) -> Verdict:
    each = [0.0] * (of.end - of.position) if betas is None else betas
    return Verdict(of.session, of.epoch, of.position, outcome, token_id, encode_betas(np.array(each)))


def ask(trace: Trace, asked: Draft, outcome: Outcome, token_id=None, betas=None) -> None:
    trace.draft(asked)
    trace.verdict(verdict(asked, outcome, token_id, betas))


def shown(trace: Trace) -> list[tuple[int, int, Origin]]:
    return [(place, token.token_id, token.origin) for place, token in trace.tokens]


def test_a_run_was_skipped_and_a_verdict_says_the_rest() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [10, 11], 12), Outcome.ACCEPTED, 13)
    ask(trace, draft(9, [], 14), Outcome.RECOVERED, 15)
    ask(trace, draft(10, [16], 17, epoch=1), Outcome.ACCEPTED)
    assert shown(trace) == [
        (5, 10, S),
        (6, 11, S),
        (7, 12, A),
        (8, 13, B),
        (9, 15, R),
        (10, 16, S),
        (11, 17, A),
    ]


def test_a_token_is_in_doubt_until_its_verdict_comes() -> None:
    trace = Trace.opened(opening(), "w")
    trace.draft(draft(5, [10], 11))
    assert shown(trace) == [(5, 10, S), (6, 11, Origin.IN_DOUBT)]
    assert trace.num_settled == 1


def test_a_token_in_doubt_that_comes_back_in_a_run_is_unverified() -> None:
    trace = Trace.opened(opening(), "w")
    trace.draft(draft(5, [10], 11))
    trace.draft(draft(5, [10, 11, 12], 13, epoch=1))
    assert shown(trace) == [(5, 10, S), (6, 11, U), (7, 12, S), (8, 13, Origin.IN_DOUBT)]


def test_a_verdict_that_the_agent_did_not_wait_for_is_taken_back_with_its_bonus() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [10], 11), Outcome.ACCEPTED, 99)
    trace.draft(draft(5, [10, 11, 12], None, epoch=1))
    assert shown(trace) == [(5, 10, S), (6, 11, U), (7, 12, S)]


def test_a_late_recovery_leaves_the_draft_token_unverified() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [], 11), Outcome.RECOVERED, 99)
    trace.draft(draft(5, [11, 12], None, epoch=1))
    assert shown(trace) == [(5, 11, U), (6, 12, S)]


def test_a_late_verdict_on_a_draft_of_an_older_epoch_changes_nothing() -> None:
    trace = Trace.opened(opening(), "w")
    missed = draft(5, [], 11)
    trace.draft(missed)
    trace.draft(draft(5, [11], 12, epoch=1))
    trace.verdict(verdict(missed, Outcome.RECOVERED, 99))
    assert shown(trace) == [(5, 11, U), (6, 12, Origin.IN_DOUBT)]


def test_what_is_told_again_after_a_resync_keeps_its_origin() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [10], 11), Outcome.ACCEPTED, 12)
    trace.draft(draft(8, [], 13))
    trace.resync(Resync(1, 0, 5))
    ask(trace, draft(5, [10, 11, 12], 13, epoch=1), Outcome.ACCEPTED)
    assert shown(trace) == [(5, 10, S), (6, 11, A), (7, 12, B), (8, 13, A)]


def test_an_answer_that_moves_to_another_worker_goes_on() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [10], 11), Outcome.ACCEPTED, 12)
    trace.draft(draft(8, [13], 14))
    assert trace.reopen(opening(session=2, ids=(*PROMPT, 10, 11, 12)), "other")
    ask(trace, draft(8, [13, 14], 15, session=2), Outcome.ACCEPTED)
    assert trace.worker == "other"
    assert shown(trace) == [(5, 10, S), (6, 11, A), (7, 12, B), (8, 13, S), (9, 14, U), (10, 15, A)]


def test_another_question_is_another_answer_even_with_the_same_words_and_seed() -> None:
    trace = Trace.opened(opening(), "w")
    assert not trace.reopen(opening(session=2, ids=(9, *PROMPT)), "w")
    assert not trace.reopen(opening(session=2, seed=8), "w")
    trace.draft(draft(5, [10], final=True))
    assert not trace.reopen(opening(session=2), "w")


def test_an_answer_heard_from_its_middle_is_shown_from_there() -> None:
    first = draft(40, [10], 11, epoch=3)
    trace = Trace.joined(first, "w")
    ask(trace, first, Outcome.ACCEPTED, 12)
    assert trace.prompt_ids is None
    assert shown(trace) == [(40, 10, S), (41, 11, A), (42, 12, B)]


def test_the_audit_sums_up_what_was_skipped() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [10, 11], 12), Outcome.ACCEPTED, betas=[0.0, 1.0, 0.5])
    assert trace.divergence == 1 / 3


def test_a_verdict_that_fits_no_draft_is_passed_over() -> None:
    trace = Trace.opened(opening(), "w")
    asked = draft(5, [10], 11)
    trace.draft(asked)
    assert trace.verdict(verdict(asked, Outcome.ACCEPTED, betas=[0.0])) is None
    assert trace.verdict(verdict(asked, Outcome.AUDITED)) is None
    assert trace.verdict(verdict(draft(6, [], 11), Outcome.ACCEPTED)) is None
    assert shown(trace)[-1] == (6, 11, Origin.IN_DOUBT)


def test_a_bonus_past_the_end_of_an_answer_is_not_part_of_it() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [], 11), Outcome.ACCEPTED, 12)
    trace.end()
    trace.settle(Usage(tokens=1, accepted=1))
    assert shown(trace) == [(5, 11, A)]


def test_a_last_verdict_that_the_agent_did_not_count_was_late() -> None:
    trace = Trace.opened(opening(), "w")
    ask(trace, draft(5, [10], 11), Outcome.ACCEPTED, 12)
    trace.end()
    trace.settle(Usage(tokens=2, skipped=1, unverified=1))
    assert shown(trace) == [(5, 10, S), (6, 11, U)]


def test_a_token_still_in_doubt_at_the_end_is_unknown_whatever_comes_later() -> None:
    trace = Trace.opened(opening(), "w")
    trace.draft(draft(5, [], 11))
    trace.end()
    trace.verdict(verdict(draft(5, [], 11), Outcome.RECOVERED, 12))
    assert shown(trace) == [(5, 11, Origin.UNKNOWN)]


def test_memory_stays_bounded_whatever_is_sent() -> None:
    trace = Trace.opened(opening(), "w")
    for position in range(5, 5 + 3 * MAX_RUN, MAX_RUN):
        trace.draft(draft(position, [1] * MAX_RUN))
    trace.draft(draft(MAX_POSITION - 10, [2]))
    assert len(trace.tokens) == MAX_TOKENS
    assert trace.num_settled == 3 * MAX_RUN + 1
