"""An agent, put together. In: settings. Out: answers to prompts.

One loop owns model and verifier; the connection's thread only fills inboxes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

import numpy as np

from edge_agent.answer import Answer, AnswerOptions
from edge_agent.controller import RiskController
from edge_agent.drafter import Drafter
from edge_agent.policy import FixedThreshold, Policy
from edge_agent.settings import AgentSettings, Mode
from edge_agent.text import Piece
from edge_agent.uncertainty import estimator
from edge_agent.verifier import Verifier
from edge_agent.workers import WorkerDirectory
from runtime.llama import Context, ContextOptions, Model
from runtime.mqtt import Connection, Publication
from schemas.errors import ConfigurationError, LinkError
from schemas.messages import AgentMetrics, AgentStatus, ChatMessage, Presence, Prompt
from schemas.vocabulary import Vocabulary


@dataclass(frozen=True)
class _Bytes:
    """What the socket had sent and received at some moment; None where the kernel does not say."""

    sent: int | None
    received: int | None


class Agent:
    """Answers prompts with a draft model and, where it doubts, with a worker's verdicts.

    Raises ConfigurationError or ModelError when it is made from unusable settings. Use as a context manager.
    """

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.topics = settings.topics
        self.model = Model(settings.model, gpu_layers=settings.gpu_layers)
        n_ctx = settings.n_ctx or self.model.context_length
        # One row of logits at a time: scratch memory for more would be wasted on a board.
        options = ContextOptions(num_cells=n_ctx, max_outputs=1, num_threads=settings.threads)
        self._context = Context(self.model, options)
        self._drafter = Drafter(self._context)
        self.policy = _policy(settings)
        self._estimate = estimator(settings.uncertainty, np.random.default_rng(settings.seed))
        self._boot = time.time_ns() // 1_000_000
        self.connection = Connection(
            settings.broker_address(),
            will=self._status(Presence.OFFLINE),
            birth=self._status(Presence.ONLINE),
        )
        self._verifier = None if settings.mode is Mode.EDGE else self._make_verifier()

    def __enter__(self) -> Self:
        self.connection.start()
        if self._verifier is not None:
            self._verifier.wait_for_worker(self.settings.connect_timeout_s)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connection.stop(self._status(Presence.OFFLINE))
        self._context.close()
        self.model.close()

    def answer(self, prompt: Prompt) -> tuple[Answer, Iterator[Piece]]:
        """An answer and the stream of its pieces. Raises ConfigurationError for a prompt that cannot be."""
        prompt_ids = self._prompt_ids(prompt)
        answer = Answer(
            model=self.model,
            drafter=self._drafter,
            policy=self.policy,
            estimate=self._estimate,
            verifier=self._verifier,
            options=self._options(prompt),
        )
        return answer, self._counted(answer, prompt.id, prompt_ids)

    def _counted(self, answer: Answer, request_id: str, prompt_ids: list[int]) -> Iterator[Piece]:
        """Stream the answer, count its bytes, publish its metrics."""
        before = self._socket_bytes()
        yield from answer.stream(prompt_ids)
        after = self._socket_bytes()
        answer.usage = answer.usage.model_copy(
            update={
                "bytes_up": _difference(after.sent, before.sent),
                "bytes_down": _difference(after.received, before.received),
            }
        )
        risk = None if self.settings.threshold is not None else self.settings.risk
        metrics = AgentMetrics(
            request_id=request_id, risk=risk, threshold=self.policy.threshold, usage=answer.usage
        )
        with contextlib.suppress(LinkError):  # metrics are not worth keeping for later
            self.connection.publish(self.topics.agent_metrics(self.settings.name), metrics.to_bytes())

    def _options(self, prompt: Prompt) -> AnswerOptions:
        settings = self.settings
        return AnswerOptions(
            sampling=prompt.sampling or settings.sampling,
            seed=settings.seed if prompt.seed is None else prompt.seed,
            max_tokens=prompt.max_tokens or settings.max_tokens,
            stop=settings.stop if prompt.stop is None else prompt.stop,
            k=settings.k,
            deadline_ms=round(settings.verdict_timeout_s * 1000),
        )

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if prompt.raw and prompt.text is not None:
            ids = self.model.text_prompt_ids(prompt.text)
        else:
            messages = prompt.messages or (ChatMessage(role="user", content=prompt.text or ""),)
            ids = self.model.chat_prompt_ids([message.model_dump() for message in messages])
        if not ids:
            raise ConfigurationError("the prompt is empty; give it some text")
        if len(ids) >= self._drafter.capacity:
            raise ConfigurationError(
                f"the prompt has {len(ids)} tokens and the context {self._drafter.capacity}; "
                "shorten it or raise n_ctx"
            )
        return ids

    def _make_verifier(self) -> Verifier:
        table = self.model.token_table()
        directory = WorkerDirectory(self.settings.name, Vocabulary(table.texts, table.kinds))
        return Verifier(
            self.connection,
            self.topics,
            self.settings.name,
            directory,
            verdict_timeout_s=self.settings.verdict_timeout_s,
            on_worker=self._announce,
        )

    def _announce(self, worker: str | None, note: str | None) -> None:
        """Say in the retained status which worker is in use, or why there is none."""
        with contextlib.suppress(LinkError):  # then it is said at the next connect
            self.connection.set_birth(self._status(Presence.ONLINE, worker, note))

    def _status(self, state: Presence, worker: str | None = None, note: str | None = None) -> Publication:
        status = AgentStatus(
            state=state,
            boot=self._boot,
            version=version("hunch"),
            model=self.model.name,
            worker=worker,
            note=note,
        )
        return Publication(self.topics.agent_status(self.settings.name), status.to_bytes())

    def _socket_bytes(self) -> _Bytes:
        return _Bytes(self.connection.bytes_sent, self.connection.bytes_received)


def _policy(settings: AgentSettings) -> Policy:
    if settings.mode is Mode.EXACT:
        return FixedThreshold(-1.0)
    if settings.threshold is not None:
        return FixedThreshold(settings.threshold)
    return RiskController(settings.risk, settings.start_threshold)


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
