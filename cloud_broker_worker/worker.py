"""A worker, put together. In: settings. Out: verdicts, for as long as it runs.

One loop owns sessions, scheduler and model; the connection's thread only fills inboxes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Self

from cloud_broker_worker.codebooks import Codebooks
from cloud_broker_worker.metrics import Metrics
from cloud_broker_worker.runner import TargetRunner
from cloud_broker_worker.scheduler import Arrival, Batch, Scheduler
from cloud_broker_worker.sessions import SessionTable, Work
from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.verification import Rows, judge
from runtime.llama import Context, ContextOptions, Model
from runtime.log_throttle import LogThrottle
from runtime.mqtt import Connection, Message, Publication
from runtime.profile_file import read_profile
from runtime.seeds import verdict_uniforms
from schemas import codec
from schemas.audit import encode_betas
from schemas.errors import ConfigurationError, LinkError, ModelError, WireError
from schemas.frames import Open, Refused, Resync, Verdict, WorkerFrame
from schemas.messages import (
    AgentStatus,
    Presence,
    VocabularyMark,
    WorkerMetrics,
    WorkerStatus,
    parse_message,
)
from schemas.profile import Profile
from schemas.topics import TopicKind
from schemas.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# With a profile to publish, a start waits this long for the broker; without one it goes on, and tries at each beat.
_PROFILE_WAIT_S = 5.0
# A metrics message for this many status beats.
_BEATS_A_METRICS = 6


class Worker:
    """Judges the drafts of many agents with one target model. Use as a context manager.

    Raises ConfigurationError or ModelError when it is made from unusable settings.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings, self.topics = settings, settings.topics
        self.model = Model(settings.model, gpu_layers=settings.gpu_layers)
        table = self.model.token_table()
        self._vocabulary = Vocabulary(table.texts, table.kinds)
        self._profile = checked_profile(settings.profile, self.model.name, self._vocabulary)
        options = context_options(settings, self.model)
        self._context = Context(self.model, options)
        self._runner = TargetRunner(self._context)
        self.sessions = SessionTable(settings.max_sessions, options.num_cells // options.max_sequences)
        self._scheduler = Scheduler(self.sessions, settings.max_batch_tokens)
        self._codebooks = Codebooks()
        if self._profile is not None:
            self._codebooks.learn(self._profile)
        self._boot = time.time_ns() // 1_000_000
        self._agent_boots: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._throttle = LogThrottle()
        self._busy_s = 0.0
        self._beat_at_s = time.monotonic()
        self._num_beats = 0
        self._stopping = False
        self.connection = Connection(
            settings.broker_address(),
            will=self._status(Presence.OFFLINE),
            birth=self._status(Presence.ONLINE),
        )
        # One inbox, so that openings and drafts of an agent stay in order; the codebooks for them come first.
        self._inbox = self.connection.subscribe(
            [
                (self.topics.all_profiles(), 1),
                (self.topics.opens_for(settings.name), 1),
                (self.topics.drafts_for(settings.name), 0),
                (self.topics.all_agent_status(), 1),
            ],
            max_queued=4096,
        )

        self.measured = Metrics(
            model=self.model.name,
            counts=self._counts,
            dropped=self._dropped,
            sessions=self.sessions,
            scheduler=self._scheduler,
            connection=self.connection,
        )

    def __enter__(self) -> Self:
        self.connection.start()
        if self._profile is not None:
            self.connection.wait_connected(_PROFILE_WAIT_S)
            self._publish_profile()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connection.stop(self._status(Presence.OFFLINE))
        self._context.close()
        self.model.close()

    def run(self) -> None:
        """Serve until `stop` is called."""
        while not self._stopping:
            self.step()

    def stop(self) -> None:
        """Let `run` return soon; may be called from any thread or a signal handler."""
        self._stopping = True
        self._inbox.wake()

    def step(self) -> None:
        """Receive, schedule, evaluate, judge, reply."""
        self._beat()
        self._receive()
        began_s = time.monotonic()
        batch = self._scheduler.next_batch(began_s)
        for agent, admission in batch.answered:
            self._count_drop(admission.reason, agent)
            self._reply(agent, admission.reply)
        for work, rows in self._evaluate(batch):
            self._reply(work.session.agent, self._judge(work, rows))
        self.measured.replied(batch, began_s, time.monotonic())

    # ------------------------------------------------------------------------------------ what comes in

    def _receive(self) -> None:
        """Queue all that is here; wait, but not past the next beat, when there is nothing to do."""
        if not len(self._scheduler):
            first = self._inbox.get(max(0.0, self._beat_at_s + self.settings.beat_s - time.monotonic()))
            if first is not None:
                self._take(first)
        for message in self._inbox.drain():
            self._take(message)

    def _take(self, message: Message) -> None:
        """One message, believed only as far as its topic and its frame hold."""
        try:
            topic = self.topics.parse(message.topic)
        except WireError as error:
            self._count_drop("unknown topic", str(error))
            return
        if topic.kind is TopicKind.PROFILE:
            self._hear_profile(message)
            return
        assert topic.agent is not None  # every other subscribed topic has an agent
        try:
            self._take_from(topic.agent, topic.kind, message)
        except WireError as error:
            self._count_drop(type(error).__name__, f"{topic.agent}: {error}")
            session = codec.peek_session(message.payload)
            if topic.kind is not TopicKind.AGENT_STATUS and session is not None:
                self._reply(topic.agent, Refused(session, f"broken frame: {error}"))

    def _take_from(self, agent: str, kind: TopicKind, message: Message) -> None:
        if kind is TopicKind.AGENT_STATUS:
            self._hear_agent(agent, parse_message(AgentStatus, message.payload))
        elif kind is TopicKind.OPEN:
            opening = codec.decode_open(message.payload, self._codebooks.for_opening(agent, message.payload))
            if self._accepts_vocabulary(agent, opening):
                self._counts["opened"] += 1
                self._scheduler.add(Arrival(agent, opening, message.received_at))
        else:
            bodies = self._codebooks.for_draft(agent, message.payload)
            draft = codec.decode_draft(message.payload, bodies, self.model.num_tokens)
            self._scheduler.add(Arrival(agent, draft, message.received_at))

    def _accepts_vocabulary(self, agent: str, opening: Open) -> bool:
        if self._vocabulary.agrees_with(opening.vocabulary):
            return True
        own = self._vocabulary.fingerprint(min(opening.vocabulary.num_tokens, self._vocabulary.num_tokens))
        why = (
            f"the draft model's vocabulary ({opening.vocabulary}) is not that of the target model "
            f"{self.model.name} ({own}); use models of one family"
        )
        self._count_drop("foreign vocabulary", f"{agent}: {why}")
        self._reply(agent, Refused(opening.session, why))
        return False

    def _hear_profile(self, message: Message) -> None:
        """Learn the codebook of a pair with this target model, and tell the agents."""
        if not message.payload:
            return  # taken back; sessions that use its codebook go on
        try:
            profile = parse_message(Profile, message.payload)
        except WireError as error:
            self._count_drop(type(error).__name__, f"{message.topic}: {error}")
            return
        fits = misfit(profile, self.model.name, self._vocabulary) is None
        if fits and self._codebooks.learn(profile):
            with contextlib.suppress(LinkError):  # the status of the next connect says it
                self.connection.set_birth(self._status(Presence.ONLINE))

    def _hear_agent(self, agent: str, status: AgentStatus) -> None:
        """An agent that left, or started anew, needs its old sessions no more."""
        known = self._agent_boots.get(agent)
        if status.state is Presence.ONLINE:
            self._agent_boots[agent] = status.boot
        if known is not None and (status.state is Presence.OFFLINE) == (status.boot == known):
            self.sessions.drop_agent(agent)

    # --------------------------------------------------------------------------------- what is decided

    def _evaluate(self, batch: Batch) -> list[tuple[Work, Rows]]:
        """One pass of the target model over the batch; a failure costs its sessions, never the worker."""
        if not batch.work:
            return []
        started_s = time.monotonic()
        try:
            rows = self._runner.run(batch.work)
        except ModelError as error:
            logger.error("the target model failed, its sessions start anew: %s", error)
            self._counts["target_failures"] += 1
            self._runner.forget()
            for session in list(self.sessions):
                self.sessions.drop(session)
            return []
        seconds = time.monotonic() - started_s
        self._scheduler.evaluated(batch, seconds)
        num_tokens = sum(work.num_tokens for work in batch.work)
        self._busy_s += seconds
        self._counts["target_passes"] += 1
        self._counts["target_tokens"] += num_tokens
        self.measured.evaluated(len(batch.work), num_tokens, seconds)
        return list(zip(batch.work, rows, strict=True))

    def _judge(self, work: Work, rows: Rows) -> WorkerFrame | None:
        session, draft = work.session, work.draft
        if draft is None:
            return self.sessions.prefilled(work)
        uniforms = verdict_uniforms(session.seed, draft.end)
        try:
            judgement = judge(rows[:, : session.num_tokens], draft, session.sampling, uniforms)
        except ModelError as error:  # logits that are no numbers
            logger.error("the target model failed on a draft of %s: %s", session.agent, error)
            self._counts["target_failures"] += 1
            self.sessions.drop(session)
            return Refused(draft.session, f"the target model failed: {error}")
        verdict = Verdict(
            draft.session,
            draft.epoch,
            draft.position,
            judgement.outcome,
            judgement.token_id,
            encode_betas(judgement.betas),
        )
        self.sessions.judged(work, verdict)
        self._counts[judgement.outcome.name.lower()] += 1
        self._counts["audited_tokens"] += len(draft.run_ids)
        return verdict

    # ------------------------------------------------------------------------------------- what goes out

    def _reply(self, agent: str, frame: WorkerFrame | None) -> None:
        if frame is None:
            return
        self._counts["resynced"] += isinstance(frame, Resync)
        self._counts["refused"] += isinstance(frame, Refused)
        try:
            self.connection.publish(self.topics.verdict(agent), codec.encode_worker_frame(frame), alias=True)
        except LinkError as error:
            self._count_drop("undelivered", str(error))

    def _beat(self) -> None:
        """Publish the status when it is due, and the metrics every few times."""
        now_s = time.monotonic()
        if now_s - self._beat_at_s < self.settings.beat_s:
            return
        load = min(1.0, self._busy_s / (now_s - self._beat_at_s))
        self._beat_at_s, self._busy_s = now_s, 0.0
        self._publish_profile()
        self._num_beats += 1
        try:
            self.connection.set_birth(self._status(Presence.ONLINE, load))
            if self._num_beats % _BEATS_A_METRICS == 0:
                topic = self.topics.worker_metrics(self.settings.name)
                self.connection.publish(topic, self.metrics().to_bytes())
        except LinkError:
            pass  # the connection says so itself, and comes back with the status

    def _publish_profile(self) -> None:
        """Publish it once, retained: the broker keeps it from then on."""
        if self._profile is None:
            return
        try:
            topic = self.topics.profile(self._profile.id)
            self.connection.publish(topic, self._profile.to_bytes(), qos=1, retain=True)
        except LinkError as error:
            logger.warning("the profile is not published yet: %s", error)
            return
        self._profile = None

    def metrics(self) -> WorkerMetrics:
        """What was done since the start."""
        counts = self._counts
        return WorkerMetrics(
            drafts=counts["accepted"] + counts["recovered"] + counts["audited"],
            accepted=counts["accepted"],
            recovered=counts["recovered"],
            audited_tokens=counts["audited_tokens"],
            target_tokens=counts["target_tokens"],
            target_passes=counts["target_passes"],
            opened=counts["opened"],
            evicted=self.sessions.num_evicted,
            resynced=counts["resynced"],
            refused=counts["refused"],
            dropped=dict(self._dropped),
        )

    def _status(self, state: Presence, load: float = 0.0) -> Publication:
        status = WorkerStatus(
            state=state,
            boot=self._boot,
            version=version("hunch"),
            model=self.model.name,
            vocabulary=VocabularyMark.of(self._vocabulary.fingerprint()),
            beat_s=self.settings.beat_s,
            sessions=len(self.sessions),
            max_sessions=self.settings.max_sessions,
            n_ctx=self.sessions.n_ctx,
            load=load,
            codebooks=self._codebooks.digests or None,
        )
        return Publication(self.topics.worker_status(self.settings.name), status.to_bytes())

    def _count_drop(self, reason: str | None, detail: str) -> None:
        """Count a message that led to no work, and say so once a minute at most."""
        if reason is None:
            return
        self._dropped[reason] += 1
        if self._throttle.allows():
            logger.warning("dropped a message (%s): %s", reason, detail)


def context_options(settings: WorkerSettings, model: Model) -> ContextOptions:
    """The context that a worker makes over its target model: room for all its sessions."""
    n_ctx = settings.n_ctx or model.context_length
    return ContextOptions(
        num_cells=n_ctx * settings.max_sessions,
        max_sequences=settings.max_sessions,
        max_batch=settings.max_batch_tokens,
        num_threads=settings.threads,
    )


def misfit(profile: Profile, target: str, vocabulary: Vocabulary) -> str | None:
    """Why a profile is not for this target model; None where it is."""
    own = VocabularyMark.of(vocabulary.fingerprint())
    return profile.misfit(profile.pair.model_copy(update={"target": target, "target_vocabulary": own}))


def checked_profile(path: Path | None, target: str, vocabulary: Vocabulary) -> Profile | None:
    """The profile to publish, if any. Raises ConfigurationError where it is for another target model."""
    if path is None:
        return None
    profile = read_profile(path)
    why = misfit(profile, target, vocabulary)
    if why is not None:
        raise ConfigurationError(f"{path}: {why}")
    return profile
