"""Accept, recover, audit: by hand-computed numbers, and against the target's distribution."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis.extra.numpy import arrays

from cloud_broker_worker.verification import judge, num_rows, recover, rejection_probability
from runtime.sampling import distribution
from schemas.audit import decode_betas, encode_betas
from schemas.distribution import one_hot, quantise
from schemas.errors import ModelError
from schemas.frames import Doubt, Draft, Outcome
from schemas.sampling import SamplingParameters

PLAIN = SamplingParameters(temperature=1.0)
GREEDY = SamplingParameters(temperature=0)
CERTAINLY_ACCEPT, CERTAINLY_REJECT = 1 - 2**-53, 0.0


def rows(*distributions):
    """Logits that say so."""
    with np.errstate(divide="ignore"):
        return np.log(np.array(distributions, np.float64)).astype(np.float32)


def draft(doubt=None, run=(), weights=()):
    return Draft(1, 0, 5, tuple(run), tuple(weights), doubt)


def doubt(probabilities, index):
    q_hat = quantise(np.array(probabilities, np.float64), np.arange(len(probabilities)))
    return Doubt(q_hat, index, 1000)


def test_a_draft_needs_a_row_a_token_and_one_after_a_token_in_doubt():
    assert num_rows(draft()) == 0
    assert num_rows(draft(run=(1, 2), weights=(9, 9))) == 2
    assert num_rows(draft(doubt([1.0], 0))) == 2
    assert num_rows(draft(doubt([1.0], 0), run=(1, 2), weights=(9, 9))) == 4


@pytest.mark.parametrize(
    ("p", "q_hat", "beta"),
    [(0.2, 0.5, 0.6), (0.5, 0.5, 0.0), (0.9, 0.5, 0.0), (0.0, 0.5, 1.0), (0.25, 1.0, 0.75)],
)
def test_beta_by_hand(p, q_hat, beta):
    assert rejection_probability(p, q_hat) == pytest.approx(beta)


def test_what_is_no_number_counts_as_certain_rejection():
    beta = rejection_probability(float("nan"), 0.5)
    assert decode_betas(encode_betas(np.array([beta]))).tolist() == [1.0]


def test_each_token_of_a_run_is_measured_against_its_own_row_and_weight():
    logits = rows([0.5, 0.5], [0.1, 0.9], [0.25, 0.75])
    judgement = judge(logits, draft(run=(0, 1, 0), weights=(256, 128, 128)), PLAIN, ())
    assert judgement.outcome is Outcome.AUDITED
    assert judgement.token_id is None
    assert judgement.betas == pytest.approx([0.5, 0.0, 0.5], abs=1e-6)


def test_an_audit_without_a_run_says_nothing():
    judgement = judge(np.empty((0, 4), np.float32), draft(), PLAIN, ())
    assert judgement.outcome is Outcome.AUDITED
    assert judgement.betas.shape == (0,)


def test_a_token_is_accepted_from_its_rejection_probability_on():
    # p[0] = 0.25 and q_hat[0] = 0.5: beta is 0.5.
    logits, sent = rows([0.25, 0.75], [1.0, 0.0]), draft(doubt([0.5, 0.5], 0))
    for uniform, outcome in [
        (0.0, Outcome.RECOVERED),
        (0.499, Outcome.RECOVERED),
        (0.501, Outcome.ACCEPTED),
        (CERTAINLY_ACCEPT, Outcome.ACCEPTED),
    ]:
        assert judge(logits, sent, PLAIN, (uniform, 0.5, 0.5)).outcome is outcome


def test_a_token_that_the_target_likes_as_much_is_always_accepted():
    logits, sent = rows([0.5, 0.5], [1.0, 0.0]), draft(doubt([0.5, 0.5], 1))
    assert judge(logits, sent, PLAIN, (CERTAINLY_REJECT, 0.5, 0.5)).outcome is Outcome.ACCEPTED


def test_a_bonus_token_comes_from_the_row_after_the_draft_token_by_the_third_number():
    logits, sent = rows([1.0, 0.0], [0.25, 0.75]), draft(doubt([1.0], 0))
    for uniform, token_id in [(0.2, 0), (0.3, 1)]:
        judgement = judge(logits, sent, PLAIN, (0.9, 0.0, uniform))
        assert (judgement.outcome, judgement.token_id) == (Outcome.ACCEPTED, token_id)


def test_a_recovered_token_comes_from_what_the_draft_gave_too_little_by_the_second_number():
    # p - q_hat is -0.25, 0.05, 0.2 (in 256ths: q_hat is 128, 64, 64): a fifth of the residual is token 1.
    p = [0.25, 0.3, 0.45]
    logits, sent = rows(p, [1.0, 0.0, 0.0]), draft(doubt([0.5, 0.25, 0.25], 0))
    for uniform, token_id in [(0.0, 1), (0.19, 1), (0.21, 2), (0.99, 2)]:
        judgement = judge(logits, sent, PLAIN, (CERTAINLY_REJECT, uniform, 0.0))
        assert (judgement.outcome, judgement.token_id) == (Outcome.RECOVERED, token_id)
        assert judgement.betas == pytest.approx([0.5], abs=1e-6)


def test_the_run_before_a_token_in_doubt_is_audited_with_it():
    logits = rows([0.5, 0.5], [0.25, 0.75], [1.0, 0.0])
    judgement = judge(logits, draft(doubt([0.5, 0.5], 0), run=(1,), weights=(256,)), PLAIN, (0.9, 0.0, 0.0))
    assert judgement.betas == pytest.approx([0.5, 0.5], abs=1e-6)


def test_where_both_agree_rounding_leaves_the_targets_own_distribution_to_recover_from():
    p = np.array([0.5, 0.5, 0.0], np.float32)
    assert [recover(p, doubt([0.5, 0.5], 0), uniform) for uniform in (0.1, 0.9)] == [0, 1]


def test_a_token_that_the_sessions_parameters_cut_is_always_recovered_within_what_they_leave():
    parameters = SamplingParameters(temperature=1.0, top_p=0.6)
    logits, sent = rows([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]), draft(doubt([0.2, 0.2, 0.6], 2))
    for uniform in np.linspace(0, 1, 11, endpoint=False):
        judgement = judge(logits, sent, parameters, (CERTAINLY_ACCEPT, uniform, 0.0))
        assert judgement.outcome is Outcome.RECOVERED
        assert judgement.token_id in {0, 1}
        assert judgement.betas.tolist() == [1.0]


@pytest.mark.parametrize(("token_id", "outcome"), [(1, Outcome.ACCEPTED), (0, Outcome.RECOVERED)])
def test_a_greedy_session_takes_the_targets_likeliest_token_whatever_the_numbers(token_id, outcome):
    logits = rows([0.4, 0.6], [0.7, 0.3])
    for uniform in (0.0, 0.5, CERTAINLY_ACCEPT):
        sent = draft(Doubt(one_hot(token_id), 0, 1000), run=(0, 0), weights=(256, 256))
        judgement = judge(np.vstack([logits, logits])[[0, 1, 0, 1]], sent, GREEDY, (uniform,) * 3)
        assert judgement.outcome is outcome
        # Accepted: the bonus token is the next row's likeliest; recovered: this row's.
        assert judgement.token_id == (0 if outcome is Outcome.ACCEPTED else 1)
        assert judgement.betas.tolist() == [1.0, 0.0, 1.0 - token_id]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_logits_that_are_no_numbers_are_an_error_and_never_a_verdict(row):
    logits = rows([0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    logits[row, 1] = np.nan
    with pytest.raises(ModelError):
        judge(logits, draft(doubt([0.5, 0.5], 0), run=(0,), weights=(256,)), PLAIN, (0.9, 0.5, 0.5))


@settings(max_examples=40)
@given(
    arrays(np.float32, 7, elements=st.floats(-4, 4, width=32)),
    arrays(np.float64, st.integers(1, 7), elements=st.floats(0.01, 1)),
    st.sampled_from([1.0, 0.8, 0.5]),
)
def test_whatever_the_draft_what_comes_out_is_distributed_as_the_target_says(logits, shares, top_p):
    # Draft tokens weighted by q_hat, acceptance by beta, recovery on an even grid of uniform numbers.
    parameters, num_grid = SamplingParameters(temperature=1.0, top_p=top_p), 500
    q_hat = quantise(shares, np.arange(len(shares)))
    p = distribution(logits, parameters)
    assume(p.min() == 0 or p.min() > 1e-4)
    out, rejected = np.zeros(7), 0.0
    for index, q in enumerate(q_hat.probabilities()):
        sent = draft(Doubt(q_hat, index, 1000))
        judgement = judge(np.stack([logits, logits]), sent, parameters, (CERTAINLY_ACCEPT, 0.5, 0.5))
        beta = judgement.betas[-1]
        out[q_hat.token_ids[index]] += q * (1 - beta)
        rejected += q * beta
    grid = (np.arange(num_grid) + 0.5) / num_grid
    recovered = [recover(p, Doubt(q_hat, 0, 1000), uniform) for uniform in grid]
    out += rejected * np.bincount(recovered, minlength=7) / num_grid
    assert np.abs(out - p).max() < 2 / num_grid
