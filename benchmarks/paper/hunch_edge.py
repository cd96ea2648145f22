"""Hunch's agent, as users have it. In: prompts. Out: answers with what they cost."""

from __future__ import annotations

from typing import Self

from benchmarks.paper.counts import Produced
from benchmarks.paper.methods import Method
from benchmarks.paper.processes import BaselineProcess
from cloud_broker_worker.verification import rejection_probability
from edge_agent.agent import Agent
from edge_agent.answer import Answer
from edge_agent.ledger import Origin
from edge_agent.settings import AgentSettings, Mode
from edge_agent.usage import known_losses
from runtime.llama import Model
from schemas.distribution import WEIGHT_SUM
from schemas.errors import LinkError
from schemas.messages import Prompt


class HunchEdge:
    """Answers with an agent; its controller goes on from one answer to the next. Use as a context manager."""

    def __init__(self, settings: AgentSettings, method: Method, onlooker: BaselineProcess) -> None:
        updates: dict[str, object] = {"mode": Mode.EDGE if method.edge else Mode.OPPORTUNISTIC}
        if method.risk is not None:
            updates["risk"] = method.risk
        self._agent = Agent(settings.model_copy(update=updates))
        self._onlooker = onlooker

    def __enter__(self) -> Self:
        self._agent.__enter__()
        if self._agent.verifier is not None and self._agent.pair() is None:
            self._agent.__exit__(None, None, None)
            raise LinkError(self._agent.connection.last_error or "the agent found no worker")
        return self

    def __exit__(self, *exc: object) -> None:
        self._agent.__exit__(*exc)

    @property
    def model(self) -> Model:
        """The draft model."""
        return self._agent.model

    def answer(self, prompt: Prompt, seed: int, *, measures_loss: bool) -> Produced:
        """One answer, its audit included. `measures_loss`: what nobody has verified is looked at as well."""
        answer, pieces = self._agent.answer(prompt.model_copy(update={"seed": seed}))
        for _ in pieces:
            pass
        usage = answer.usage
        return Produced(
            prompt_ids=answer.ledger.ids[: answer.ledger.num_prompt],
            ids=answer.ledger.ids[answer.ledger.num_prompt :],
            num_skipped=usage.skipped,
            num_sent=usage.accepted + usage.recovered,
            num_free=usage.bonus,
            num_unverified=usage.unverified,
            losses=self._losses(answer, measures_loss=measures_loss),
            seconds=usage.seconds,
            bytes_up=usage.bytes_up or 0,
            bytes_down=usage.bytes_down or 0,
        )

    def _losses(self, answer: Answer, *, measures_loss: bool) -> list[float]:
        """As audited; about what nobody has verified, the target is asked aside. Where it is not, none: the rest
        alone would be too favourable.
        """
        ledger = answer.ledger
        known: list[float] = known_losses(ledger.records).tolist()
        unverified = [i for i, record in enumerate(ledger.records) if record.origin is Origin.UNVERIFIED]
        if unverified and not measures_loss:
            return []
        if unverified:
            prompt_ids, ids = ledger.ids[: ledger.num_prompt], ledger.ids[ledger.num_prompt :]
            view = self._onlooker.view(prompt_ids, ids, self._agent.settings.sampling)
            for index in unverified:
                record = ledger.records[index]
                q_hat = (record.weight or WEIGHT_SUM) / WEIGHT_SUM
                known.append(rejection_probability(view[index][record.token_id], q_hat))
        return known
