"""What is verified is distributed as the target's own tokens, and what is skipped costs what the audit says.

Fake models are tables of logits; everything between them is the real thing, the wire included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chisquare

from cloud_broker_worker.baselines import fill_uniformly, judge_as_published
from cloud_broker_worker.sessions import SessionTable
from cloud_broker_worker.verification import judge
from edge_agent.ledger import Ledger, Origin
from edge_agent.prediction import Prediction, predict
from edge_agent.usage import summarise
from edge_agent.verifier import RoundTrips
from runtime.sampling import distribution, largest
from schemas import codec
from schemas.audit import encode_betas
from schemas.compression import BodyCodec
from schemas.distribution import DraftToken
from schemas.frames import Doubt, Draft, Open, Outcome, Verdict
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

VOCAB = 48
NUM_DRAWS = 100_000
# With this many tests a right answer fails one run in a thousand; the seed is fixed, so it never does.
SIGNIFICANCE = 1e-4
BODY_CODEC = BodyCodec()


@dataclass(frozen=True)
class Context:
    """One place in a text: what both models would say there, and what the target says one token later."""

    draft_logits: npt.NDArray[np.float32]
    target_logits: npt.NDArray[np.float32]
    next_logits: npt.NDArray[np.float32]

    @classmethod
    def random(cls, rng: np.random.Generator, vocab: int = VOCAB) -> Context:
        """Models that mostly agree, as real ones do."""
        shared = rng.normal(scale=2.0, size=vocab)
        rows = [shared + rng.normal(scale=0.8, size=vocab), shared, rng.normal(scale=2.0, size=vocab)]
        return cls(*(row.astype(np.float32) for row in rows))

    def verdict_rows(self) -> npt.NDArray[np.float32]:
        return np.stack([self.target_logits, self.next_logits])


def through_the_wire(draft: Draft) -> Draft:
    return codec.decode_draft(codec.encode_draft(draft, BODY_CODEC), BODY_CODEC, VOCAB)


def verified_tokens(
    context: Context, parameters: SamplingParameters, k: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How often each token comes out of verification, and each as a bonus, over NUM_DRAWS draws."""
    counts, bonuses = np.zeros((2, VOCAB), np.int64)
    q_hat = predict(context.draft_logits, parameters).truncated(k)
    drafts: dict[int, Draft] = {}
    rows = context.verdict_rows()
    for uniforms in rng.random((NUM_DRAWS, 3)):
        drawn = q_hat.draw(rng)
        if drawn.index not in drafts:
            drafts[drawn.index] = through_the_wire(Draft(1, 0, 5, (), (), Doubt(q_hat, drawn.index, 1000)))
        judgement = judge(rows, drafts[drawn.index], parameters, uniforms)
        assert judgement.token_id is not None
        if judgement.outcome is Outcome.ACCEPTED:
            counts[drawn.token_id] += 1
            bonuses[judgement.token_id] += 1
        else:
            counts[judgement.token_id] += 1
    return counts, bonuses


def p_value(counts: npt.NDArray[np.int64], expected: npt.NDArray[np.floating]) -> float:
    """Chi-square, cells that expect fewer than five put together; impossible tokens must not come out."""
    possible = expected > 0
    assert counts[~possible].sum() == 0
    counts, expected = counts[possible], expected[possible].astype(np.float64)
    expected = expected / expected.sum() * counts.sum()
    small = expected < 5
    if small.any():
        counts = np.append(counts[~small], counts[small].sum())
        expected = np.append(expected[~small], expected[small].sum())
    return float(chisquare(counts, expected).pvalue) if len(counts) > 1 else 1.0


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_verified_tokens_and_bonus_tokens_follow_the_targets_distribution(k: int, top_p: float) -> None:
    rng = np.random.default_rng([k, int(top_p * 10)])
    context = Context.random(rng)
    parameters = SamplingParameters(temperature=0.8, top_p=top_p)
    counts, bonuses = verified_tokens(context, parameters, k, rng)
    assert counts.sum() == NUM_DRAWS
    assert p_value(counts, distribution(context.target_logits, parameters)) > SIGNIFICANCE
    assert p_value(bonuses, distribution(context.next_logits, parameters)) > SIGNIFICANCE


@pytest.mark.parametrize("k", [4, 16])
def test_the_papers_way_fails_the_same_test(k: int) -> None:
    rng = np.random.default_rng(k)
    context = Context.random(rng)
    parameters = SamplingParameters(temperature=0.8)
    q, p = (distribution(logits, parameters) for logits in (context.draft_logits, context.target_logits))
    filled = fill_uniformly(q, largest(q, k))
    drawn = rng.choice(VOCAB, size=NUM_DRAWS, p=q.astype(np.float64) / q.sum(dtype=np.float64))
    uniforms = rng.random((NUM_DRAWS, 2))
    out = [judge_as_published(p, filled, int(d), u) for d, u in zip(drawn, uniforms, strict=True)]
    assert p_value(np.bincount(out, minlength=VOCAB), p) < 1e-12


def test_the_papers_way_is_exact_where_nothing_is_cut() -> None:
    # The bias comes from the missing entries alone: so the failure above is the method's, not our code's.
    rng = np.random.default_rng(0)
    context = Context.random(rng)
    parameters = SamplingParameters(temperature=0.8)
    q, p = (distribution(logits, parameters) for logits in (context.draft_logits, context.target_logits))
    filled = fill_uniformly(q, largest(q, VOCAB))
    drawn = rng.choice(VOCAB, size=NUM_DRAWS, p=q.astype(np.float64) / q.sum(dtype=np.float64))
    uniforms = rng.random((NUM_DRAWS, 2))
    out = [judge_as_published(p, filled, int(d), u) for d, u in zip(drawn, uniforms, strict=True)]
    assert p_value(np.bincount(out, minlength=VOCAB), p) > SIGNIFICANCE


class Answering:
    """An answer of fake models, from prompt to final audit, by the agent's and the worker's own books."""

    def __init__(self, threshold: float, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.threshold = threshold
        self.parameters = SamplingParameters(temperature=0.8)
        self.table = SessionTable(max_sessions=1, n_ctx=100_000)
        self.ledger = Ledger([1, 2, 3])
        opening = Open(1, Fingerprint(VOCAB, bytes(16)), self.parameters, 0, 90_000, (1, 2, 3))
        assert self.ledger.open(1) == [1, 2, 3]
        self.table.open("agent-1", opening, set())
        self.contexts: list[Context] = []
        self.variations: list[float] = []

    def context_at(self, position: int) -> Context:
        """The models' views before the token at that position; drawn once, whatever the text."""
        while len(self.contexts) <= position:
            self.contexts.append(Context.random(self.rng))
        return self.contexts[position]

    def step(self) -> None:
        position = len(self.ledger.ids)
        context = self.context_at(position)
        prediction = predict(context.draft_logits, self.parameters)
        q_hat = prediction.truncated(8)
        drawn = q_hat.draw(self.rng)
        uncertainty = 1.0 - float(prediction.tempered[drawn.token_id])
        self.variations.append(self.variation(prediction, context))
        if uncertainty <= self.threshold:
            self.ledger.commit(drawn.token_id, Origin.SKIPPED, draft=drawn, uncertainty=uncertainty)
            if self.ledger.num_pending >= 64:
                self.exchange(self.ledger.audit(final=False))
            return
        verdict = self.exchange(self.ledger.ask(Doubt(q_hat, drawn.index, 1000)))
        self.obey(verdict, drawn, uncertainty)

    def obey(self, verdict: Verdict, drawn: DraftToken, uncertainty: float) -> None:
        assert verdict.token_id is not None
        if verdict.outcome is Outcome.RECOVERED:
            self.ledger.commit(verdict.token_id, Origin.RECOVERED)
            return
        self.ledger.commit(drawn.token_id, Origin.ACCEPTED, draft=drawn, uncertainty=uncertainty)
        self.ledger.commit(verdict.token_id, Origin.BONUS)
        self.variations.append(0.0)

    def variation(self, prediction: Prediction, context: Context) -> float:
        """The exact divergence of the next token: sum over the tokens that are skipped of max(q_hat - p, 0)."""
        q_hat = prediction.truncated(8)
        p = distribution(context.target_logits, self.parameters)
        skipped = 1.0 - prediction.tempered[q_hat.token_ids] <= self.threshold
        return float(np.maximum(q_hat.probabilities() - p[q_hat.token_ids], 0)[skipped].sum())

    def exchange(self, draft: Draft) -> Verdict:
        """The worker's side, and the agent's books afterwards."""
        draft = through_the_wire(draft)
        work = self.table.admit("agent-1", draft).work
        assert work is not None
        rows = [self.context_at(draft.position + i).target_logits for i in range(len(draft.run_ids) + 2)]
        judgement = judge(np.stack(rows), draft, self.parameters, self.rng.random(3))
        betas = encode_betas(judgement.betas)
        verdict = Verdict(1, draft.epoch, draft.position, judgement.outcome, judgement.token_id, betas)
        self.table.judged(work, verdict)
        sent = codec.decode_worker_frame(codec.encode_worker_frame(verdict))
        assert isinstance(sent, Verdict)
        assert self.ledger.settle(sent) is not None
        return sent


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_the_audit_reports_the_true_total_variation(threshold: float) -> None:
    answering = Answering(threshold, seed=int(threshold * 10))
    while len(answering.ledger.records) < 12_000:
        answering.step()
    answering.exchange(answering.ledger.audit(final=True))
    usage = summarise(answering.ledger, RoundTrips(), 1.0)
    assert usage.audited == usage.skipped > 500
    assert usage.divergence is not None
    losses = [
        (record.beta or 0.0) if record.origin is Origin.SKIPPED else 0.0
        for record in answering.ledger.records
    ]
    difference = np.array(losses) - np.array(answering.variations[: len(losses)])
    standard_error = difference.std() / len(difference) ** 0.5
    truth = float(np.mean(answering.variations))
    assert truth > 0.005  # else there would be nothing to find
    assert abs(usage.divergence - truth) < 4 * standard_error
