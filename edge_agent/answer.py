"""One answer, token by token. In: prompt ids. Out: pieces of text as they are committed, and the usage.

`step` is the whole of a token's way (docs/architecture.md): predict, draw from what would be sent, judge,
skip or ask.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.drafter import Drafter
from edge_agent.history import History
from edge_agent.ledger import Ledger, Origin
from edge_agent.policy import Choice, Policy
from edge_agent.prediction import predict
from edge_agent.round_trips import RoundTrips
from edge_agent.text import Piece, TextAssembler
from edge_agent.truncation import Truncate
from edge_agent.uncertainty import Estimator
from edge_agent.usage import summarise
from edge_agent.verifier import SessionTerms, Verifier
from runtime.llama import Model
from runtime.seeds import Stream, generator
from schemas.distribution import DraftToken, TruncatedDistribution
from schemas.frames import Doubt, Outcome, Verdict
from schemas.messages import Usage
from schemas.sampling import SamplingParameters


@dataclass(frozen=True)
class AnswerOptions:
    """What an answer is to be like. `deadline_ms` is what drafts tell the worker of the agent's patience."""

    sampling: SamplingParameters
    seed: int | None
    max_tokens: int
    stop: tuple[str, ...]
    truncate: Truncate
    deadline_ms: int


class Answer:
    """One answer under way. `verifier` None: nobody is asked, every token is unverified."""

    def __init__(
        self,
        *,
        model: Model,
        drafter: Drafter,
        policy: Policy,
        estimate: Estimator,
        verifier: Verifier | None,
        options: AnswerOptions,
    ) -> None:
        self._model, self._drafter, self._policy = model, drafter, policy
        self._estimate, self._verifier, self._options = estimate, verifier, options
        self._seed = secrets.randbits(64) if options.seed is None else options.seed
        self._rng = generator(self._seed, Stream.DRAFT)
        self._text = TextAssembler(options.stop)
        self.ledger = Ledger([])
        self._history = History()
        self.finish_reason: str | None = None
        self.usage = Usage()
        self.round_trips = RoundTrips()

    def stream(self, prompt_ids: list[int]) -> Iterator[Piece]:
        """Generate the answer; yields text as soon as it stands. At the end `usage` and `round_trips` are complete."""
        started_s = time.monotonic()
        self.ledger = Ledger(prompt_ids)
        self._history = History(self.ledger.ids)
        self._policy.follow(self.ledger.records)
        if self._verifier is not None:
            max_length = min(len(prompt_ids) + self._options.max_tokens, self._drafter.capacity)
            terms = SessionTerms(self._options.sampling, self._seed, max_length)
            self._verifier.begin(self.ledger, terms)
        if self._options.seed is not None:
            # What is cached was evaluated in other passes, and logits differ a little with a pass's shape.
            self._drafter.rollback(0)
        self._logits = self._drafter.restart(prompt_ids)
        try:
            while self.finish_reason is None:
                yield from self.step()
            yield from self._text.finish()
        finally:
            seconds = time.monotonic() - started_s
            if self._verifier is not None:
                self._verifier.finish(wait=self.finish_reason is not None)  # else it was interrupted
                self.round_trips = self._verifier.round_trips
            self._policy.end()
            self.usage = summarise(self.ledger, self.round_trips, seconds)

    def step(self) -> list[Piece]:
        """Commit the next token, or two where a bonus comes with it; returns the text that this completes."""
        logits = self._logits[: self._num_drawable]
        prediction = predict(logits, self._options.sampling, self._history)
        q_hat = self._options.truncate(prediction)
        draft = q_hat.draw(self._rng)
        uncertainty = self._estimate(prediction, draft.token_id)
        if self._may_skip(draft, uncertainty):
            return self._keep(draft, Origin.SKIPPED, uncertainty)
        return self._resolve(q_hat, draft, uncertainty)

    def _may_skip(self, draft: DraftToken, uncertainty: float) -> bool:
        """Whether the draft token is kept without asking; waits where that hangs on audits under way."""
        if self._verifier is None:
            return False

        def choose() -> Choice:
            return self._policy.choose(uncertainty, structured=self._text.is_structured)

        choice = choose()
        if choice is Choice.AWAIT:
            self._look_ahead(draft)
            self._verifier.wait_for_audits(lambda: choose() is not Choice.AWAIT)
            choice = choose()
        return choice is Choice.SKIP

    def _resolve(self, q_hat: TruncatedDistribution, draft: DraftToken, uncertainty: float) -> list[Piece]:
        """Ask about a token in doubt, evaluate it while the verdict is on its way, and do as it says."""
        doubt = Doubt(q_hat, draft.index, self._options.deadline_ms)
        if self._verifier is None or not self._verifier.ask(doubt):
            return self._keep(draft, Origin.UNVERIFIED, uncertainty)
        self._look_ahead(draft)
        verdict = self._verifier.wait()
        if verdict is None:
            return self._keep(draft, Origin.UNVERIFIED, uncertainty)
        return self._obey(verdict, draft, uncertainty)

    def _look_ahead(self, draft: DraftToken) -> None:
        """Evaluate the draft token while something about it is on its way: most likely it will stand."""
        if self._drafter.length == len(self.ledger.ids) and self._has_next(draft.token_id):
            self._logits = self._drafter.advance([draft.token_id])

    def _obey(self, verdict: Verdict, draft: DraftToken, uncertainty: float) -> list[Piece]:
        if verdict.outcome is Outcome.RECOVERED:
            assert verdict.token_id is not None  # the codec has seen to it
            self._drafter.rollback(len(self.ledger.ids))
            return self._commit(verdict.token_id, Origin.RECOVERED)
        pieces = self._keep(draft, Origin.ACCEPTED, uncertainty)
        if verdict.token_id is not None and self.finish_reason is None:
            pieces += self._commit(verdict.token_id, Origin.BONUS)
        return pieces

    def _keep(self, draft: DraftToken, origin: Origin, uncertainty: float) -> list[Piece]:
        return self._commit(draft.token_id, origin, draft, uncertainty)

    def _commit(
        self, token_id: int, origin: Origin, draft: DraftToken | None = None, uncertainty: float | None = None
    ) -> list[Piece]:
        """Hand a token to the reader for good, and see whether the answer ends with it."""
        self.ledger.commit(token_id, origin, draft=draft, uncertainty=uncertainty)
        pieces = self._text.add(self._model.piece(token_id), origin)
        if self._model.ends_generation(token_id) or self._text.stopped:
            self.finish_reason = "stop"
        elif not self._has_next(token_id):
            self.finish_reason = "length"
        elif self._drafter.length < len(self.ledger.ids):
            self._logits = self._drafter.advance(self.ledger.ids[self._drafter.length :])
        if self._verifier is not None and self.ledger.num_pending >= self._policy.max_run:
            self._verifier.audit()
        return pieces

    @property
    def _num_drawable(self) -> int:
        """Ids below this may be drawn: padding means nothing, and a target model may have fewer tokens."""
        num_meant = self._model.num_meant
        return num_meant if self._verifier is None else min(num_meant, self._verifier.num_shared)

    def _has_next(self, token_id: int) -> bool:
        """Whether another token may follow this one."""
        is_room = (
            len(self.ledger.records) < self._options.max_tokens
            and self._drafter.length < self._drafter.capacity
        )
        return is_room and not self._model.ends_generation(token_id)
