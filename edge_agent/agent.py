"""An agent, put together. In: settings. Out: answers to prompts.

One loop owns model and verifier; the connection's thread only fills inboxes.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

import numpy as np

from edge_agent.answer import Answer, AnswerOptions
from edge_agent.controller import DEFAULT_START, RiskController
from edge_agent.drafter import Drafter
from edge_agent.memory import Memory
from edge_agent.metrics import Metrics
from edge_agent.policy import FixedThreshold, Policy
from edge_agent.profiles import ProfileShelf, check_draft, pair_in_use
from edge_agent.reports import Reports, message_bytes
from edge_agent.settings import AgentSettings, Mode
from edge_agent.text import Piece
from edge_agent.truncation import truncation
from edge_agent.uncertainty import FALLBACK, LEARNED, estimator
from edge_agent.usage import Recent
from edge_agent.verifier import Verifier
from edge_agent.workers import WorkerDirectory
from runtime.content_digest import content_digest
from runtime.llama import Context, ContextOptions, Model
from runtime.mqtt import Connection, Publication
from runtime.profile_file import read_profile
from schemas.errors import ConfigurationError, LinkError
from schemas.messages import AgentMetrics, AgentStatus, ChatMessage, Presence, Prompt
from schemas.profile import LearnedModel, Pair, Profile
from schemas.vocabulary import Vocabulary

# A retained profile comes right after the subscription; that there is none is said by nothing but silence.
_PROFILE_WAIT_S = 0.25


@dataclass(frozen=True)
class _Bytes:
    """What the socket had sent and received at some moment; None where the kernel does not say."""

    sent: int | None
    received: int | None

    @property
    def total(self) -> int | None:
        """Both together."""
        return None if self.sent is None or self.received is None else self.sent + self.received


class Agent:
    """Answers prompts with a draft model and, where it doubts, with a worker's verdicts.

    Raises ConfigurationError or ModelError when it is made from unusable settings. Use as a context manager.
    """

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.topics = settings.topics
        self.model = Model(settings.model, gpu_layers=settings.gpu_layers)
        self._context = Context(self.model, context_options(settings, self.model))
        self._drafter = Drafter(self._context)
        self.policy = _policy(settings)
        self._memory = Memory(settings.state_dir, settings.name)
        learned = self._memory.load()
        if learned is not None and isinstance(self.policy, RiskController):
            self.policy.recall(learned)
        self._recent = Recent()
        self.profile: Profile | None = None
        self._judged_pair: Pair | None = None
        given = None if settings.profile is None else read_profile(settings.profile)
        self._judge_by(given, None)
        self._draft_digest = content_digest(settings.model)
        if given is not None:
            check_draft(given, f"{settings.profile}", self.model.name, self._draft_digest)
        self._boot = time.time_ns() // 1_000_000
        will, birth = self._status(Presence.OFFLINE), self._status(Presence.ONLINE)
        self.connection = Connection(settings.broker_address(), will=will, birth=birth)
        self._reports = Reports(sum(message_bytes(said.topic, said.payload) for said in (will, birth)))
        table = self.model.token_table()
        self._vocabulary = Vocabulary(table.texts, table.kinds)
        self._directory = WorkerDirectory(settings.name, self._vocabulary)
        self._shelf = ProfileShelf(self.connection, self.topics, given)
        self._verifier = None if settings.mode is Mode.EDGE else self._make_verifier()
        self.measured = Metrics(
            model=self.model.name,
            mode=settings.mode.value,
            risk=_risk_held(settings),
            threshold=lambda: self.policy.threshold,
            connection=self.connection,
            verifier=self._verifier,
        )

    def __enter__(self) -> Self:
        self.connection.start()
        if self._verifier is not None and self._verifier.wait_for_worker(self.settings.connect_timeout_s):
            self._find_profile(_PROFILE_WAIT_S)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._remember(at_once=True)
        self.connection.stop(self._status(Presence.OFFLINE))
        self._context.close()
        self.model.close()

    def answer(self, prompt: Prompt) -> tuple[Answer, Iterator[Piece]]:
        """An answer and the stream of its pieces. Raises ConfigurationError for a prompt that cannot be."""
        prompt_ids = self._prompt_ids(prompt)
        if self._verifier is not None:
            self._find_profile()
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
        """Stream the answer, count its bytes, and tell operators of it in time."""
        before = self._socket_bytes()
        yield from answer.stream(prompt_ids)
        after = self._socket_bytes()
        self._recent.add(answer.ledger.records)
        self._remember()
        answer.usage = answer.usage.model_copy(
            update={
                "bytes_up": _difference(after.sent, before.sent),
                "bytes_down": _difference(after.received, before.received),
            }
        )
        self.measured.answered(answer.usage, answer.round_trips)
        self._reports.add(answer.usage, answer.round_trips.seconds)
        if self._reports.is_due(after.total, self.connection.num_connects):
            self._report(request_id)

    def _report(self, request_id: str) -> None:
        """Publish what the answers since the last report came to; `request_id` is the last one's."""
        metrics = AgentMetrics(
            request_id=request_id,
            answers=self._reports.num_answers,
            risk=_risk_held(self.settings),
            threshold=self.policy.threshold,
            usage=self._reports.usage,
            recent=self._recent.figures(),
        )
        topic, payload = self.topics.agent_metrics(self.settings.name), metrics.to_bytes()
        with contextlib.suppress(LinkError):  # then the next report holds them too
            self.connection.publish(topic, payload, alias=True)
            self._reports.told(topic, payload)

    def _options(self, prompt: Prompt) -> AnswerOptions:
        settings = self.settings
        return AnswerOptions(
            sampling=prompt.sampling or settings.sampling,
            seed=settings.seed if prompt.seed is None else prompt.seed,
            max_tokens=prompt.max_tokens or settings.max_tokens,
            stop=settings.stop if prompt.stop is None else prompt.stop,
            truncate=self._truncate,
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
        return Verifier(
            self.connection,
            self.topics,
            self.settings.name,
            self._directory,
            verdict_timeout_s=self.settings.verdict_timeout_s,
            on_worker=self._announce,
            codebook=lambda: self._codebook,
        )

    @property
    def drafter(self) -> Drafter:
        """The draft model at work, for a calibration."""
        return self._drafter

    @property
    def verifier(self) -> Verifier | None:
        """Who asks the workers; None in edge mode."""
        return self._verifier

    def pair(self) -> Pair | None:
        """The draft model and the target model of the worker that would be asked now; None without one."""
        return pair_in_use(self._directory, self.model.name, self._draft_digest, self._vocabulary)

    def _find_profile(self, wait_s: float = 0.0) -> None:
        """Judge by the profile of the pair in use, once there is one or it has changed."""
        pair = self.pair()
        if pair is None:
            return
        profile = self._shelf.find(pair, wait_s)
        if (profile, pair) != (self.profile, self._judged_pair):
            self._judge_by(profile, pair)

    def _judge_by(self, profile: Profile | None, pair: Pair | None) -> None:
        """Estimator and threshold anew: a threshold means nothing to another estimator or another pair.

        Without a profile a wish for the learned estimator waits, and the best that needs none stands in.
        """
        settings = self.settings
        name = settings.uncertainty or (profile.default_estimator if profile else FALLBACK)
        if name == LEARNED and profile is None:
            name = FALLBACK
        learned = profile.learned if profile else None
        self._estimate = estimator(name, np.random.default_rng(settings.seed), learned)
        if isinstance(self.policy, RiskController):
            calibrated = profile.start_for(name, settings.risk) if profile else None
            starts = (settings.start_threshold, calibrated, DEFAULT_START)
            start = next(start for start in starts if start is not None)
            self.policy.turn_to(_subject(pair, name, learned), start)
        self.profile, self._judged_pair = profile, pair
        self._truncate = truncation(settings.rule(profile))
        self._codebook = profile.codebook() if profile else None

    def _remember(self, *, at_once: bool = False) -> None:
        if isinstance(self.policy, RiskController):
            self._memory.save(self.policy.learned(), at_once=at_once)

    def _announce(self, worker: str | None, note: str | None) -> None:
        """Say in the retained status which worker is in use, or why there is none."""
        status = self._status(Presence.ONLINE, worker, note)
        with contextlib.suppress(LinkError):  # then it is said at the next connect
            self.connection.set_birth(status)
            self._reports.charge(status.topic, status.payload)

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


def context_options(settings: AgentSettings, model: Model) -> ContextOptions:
    """The context that an agent makes over its draft model."""
    n_ctx = settings.n_ctx or model.context_length
    # One row of logits at a time: scratch memory for more would be wasted on a board.
    return ContextOptions(num_cells=n_ctx, max_outputs=1, num_threads=settings.threads)


def _policy(settings: AgentSettings) -> Policy:
    if settings.mode is Mode.EXACT:
        return FixedThreshold(-1.0)
    if settings.threshold is not None:
        return FixedThreshold(settings.threshold)
    return RiskController(settings.risk)


def _subject(pair: Pair | None, estimator_name: str, learned: LearnedModel | None) -> str:
    """What a threshold belongs to: pair and estimator, the learned one by what it has learned."""
    if pair is None:
        return ""  # not known yet, and nothing can be learned before it is
    if estimator_name != LEARNED or learned is None:
        return f"{pair.id} {estimator_name}"
    digest = hashlib.blake2b(learned.to_bytes(), digest_size=4).hexdigest()
    return f"{pair.id} {estimator_name} {digest}"


def _risk_held(settings: AgentSettings) -> float | None:
    """The risk that answers are held to: 0 where all is verified, None where nothing holds one."""
    if settings.mode is Mode.EXACT:
        return 0.0
    return None if settings.mode is Mode.EDGE or settings.threshold is not None else settings.risk


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
