"""Teacher forcing over the wire. In: a stretch, a worker. Out: a sample for each of its positions.

At each position of the text a draft token is drawn as an answer would draw it, and sent as a run for its audit.
The next draft goes back one position, of a newer epoch, and puts the text's own token in its place: the worker
then has the text as context, and tells `beta` of the token drawn. Nothing waits: the audits of a whole stretch
are under way at once. A draft token is drawn from the widest `q_hat`, and audited against the highest weight that
any rule for `k` gives it: so its `p` is told wherever it matters, and all rules can be tried on the same samples
(`replay`). This is unbiased for the text's contexts whatever was skipped or accepted there, which
audits of a model's own answers are not: those only see what was skipped.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_agent.calibration.replay import WIDTHS, Sample, Shares, reach, widest
from edge_agent.calibration.texts import Stretch
from edge_agent.drafter import Drafter
from edge_agent.history import History
from edge_agent.learned import prediction_features, table_keys
from edge_agent.ledger import Ledger, Origin, Record
from edge_agent.prediction import LEAST_SHARE, Prediction, predict
from edge_agent.uncertainty import ESTIMATOR_NAMES, Estimator, estimator
from edge_agent.verifier import SessionTerms, Verifier
from runtime.sampling import largest
from runtime.seeds import Stream, generator
from schemas.audit import decode_betas
from schemas.distribution import MAX_K, DraftToken, TokenIds
from schemas.errors import LinkError
from schemas.frames import Draft, Verdict
from schemas.sampling import SamplingParameters

_DIGITS = 6


class ForcedLedger(Ledger):
    """Books in which a drawn token gives way to the text's own once its audit has been sent."""

    def __init__(self, prompt_ids: list[int]) -> None:
        super().__init__(prompt_ids)
        self.betas: dict[int, float] = {}  # by position

    def force(self, token_id: int) -> None:
        """Put the text's token in place of the last one, for the worker too."""
        self.ids[-1] = token_id
        self.records[-1] = Record(token_id, Origin.UNVERIFIED)
        self.known = min(self.known, len(self.ids) - 1)
        self.epoch += 1

    def _enter_betas(self, draft: Draft, verdict: Verdict) -> None:
        """A run ends with the token drawn; what stands before it is the text's."""
        if verdict.betas:
            self.betas[draft.end - 1] = float(decode_betas(verdict.betas)[-1])


class Collector:
    """Collects samples for one sampling setting."""

    def __init__(
        self,
        drafter: Drafter,
        verifier: Verifier,
        *,
        sampling: SamplingParameters,
        seed: int,
        num_tokens: int,
    ) -> None:
        self._drafter, self._verifier = drafter, verifier
        self._sampling, self._seed, self._num_tokens = sampling, seed, num_tokens

    def collect(self, stretch: Stretch, number: int) -> list[Sample]:
        """A sample for each position whose audit came; `number` seeds the draws, so that resuming draws alike.

        Raises LinkError where no audit came at all.
        """
        rng = generator(self._seed, Stream.DRAFT, number)
        judges = [estimator(name, rng) for name in ESTIMATOR_NAMES]
        ledger = ForcedLedger(list(stretch.prompt_ids))
        # It looks just before a token is drawn, when all ids stand as the text has them.
        history = History(ledger.ids)
        terms = SessionTerms(self._sampling, self._seed, self._drafter.capacity)
        self._verifier.begin(ledger, terms)
        drawn: dict[int, Sample] = {}
        logits = self._drafter.restart(list(stretch.prompt_ids))
        for token_id in (*stretch.text_ids, None):
            position = len(ledger.ids)
            drawn[position] = self._draw(logits, ledger, history, judges, rng)
            self._verifier.audit()
            if token_id is not None:
                ledger.force(token_id)
                logits = self._drafter.advance([token_id])
        self._verifier.finish()
        samples = [_audited(drawn[at], ledger.betas[at]) for at in sorted(drawn) if at in ledger.betas]
        if not samples:
            raise LinkError("no audit came back from a worker; the samples so far are kept, try again")
        return samples

    def _draw(
        self,
        logits: np.ndarray,
        ledger: Ledger,
        history: History,
        judges: list[Estimator],
        rng: np.random.Generator,
    ) -> Sample:
        num_drawable = min(self._num_tokens, self._verifier.num_shared)
        prediction = predict(logits[:num_drawable], self._sampling, history)
        token_ids, shares = _candidates(prediction)
        draft = widest(shares, token_ids).draw(rng)
        scores = tuple(judge(prediction, draft.token_id) for judge in judges)
        # Before the token is committed: its history must not hold the token itself.
        features = tuple(prediction_features(prediction, draft.token_id).tolist())
        keys = table_keys(prediction, draft.token_id)
        audited = DraftToken(draft.token_id, draft.index, reach(shares, token_ids, draft.token_id))
        ledger.commit(draft.token_id, Origin.SKIPPED, draft=audited, uncertainty=scores[0])
        return Sample(
            draft.token_id,
            draft.weight,
            keys,
            audited.probability,
            scores,
            features,
            tuple(token_ids.tolist()),
            tuple(shares.tolist()),
            _left_out(prediction),
        )


def _candidates(prediction: Prediction) -> tuple[TokenIds, Shares]:
    """What may get a weight, by id, and its share of `q`, to as many digits as matter."""
    ids = np.flatnonzero(prediction.q >= LEAST_SHARE)
    if not 0 < len(ids) <= MAX_K:
        ids = np.sort(largest(prediction.q, MAX_K))
    return ids.astype(np.int32), prediction.q[ids].astype(np.float64).round(_DIGITS)


def _left_out(prediction: Prediction) -> tuple[float, ...]:
    held = np.cumsum(prediction.q[largest(prediction.q, WIDTHS[-1])], dtype=np.float64)
    left = [1.0 - held[min(width, len(held)) - 1] for width in WIDTHS]
    return tuple(np.maximum(left, 0.0).round(_DIGITS).tolist())


def _audited(sample: Sample, beta: float) -> Sample:
    """With `p` as the audit tells it: until then it holds what the token was audited against."""
    return replace(sample, p=(1.0 - beta) * sample.p)
