"""The papers' worker over MQTT. In: uploads of one edge. Out: one token for each; or a whole answer, streamed.

The target keeps its cache, which is the least that their throughput needs: for an upload it evaluates the tokens
that it has not seen, and judges the draft token as published.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from benchmarks.paper.counts import TargetCounts
from benchmarks.paper.frames import Begin, Reply, Upload
from benchmarks.paper.upload import unpack
from cloud_broker_worker.baselines import judge_as_published
from runtime.llama import Context, ContextOptions, Model, Span
from runtime.mqtt import BrokerAddress, Connection, Message
from runtime.sampling import distribution, draw
from runtime.seeds import verdict_uniforms
from schemas.distribution import Probabilities
from schemas.sampling import SamplingParameters
from schemas.topics import TopicKind, Topics


class TargetCache:
    """The target over one text at a time; what a new text shares with the last one stays evaluated."""

    def __init__(self, model: Model) -> None:
        self.counts = TargetCounts()
        self._context = Context(model, ContextOptions(model.context_length, num_threads=1))
        self._ids: list[int] = []

    def close(self) -> None:
        """Free the cache."""
        self._context.close()

    def rows(self, ids: list[int], num_rows: int, *, counts: bool = True) -> npt.NDArray[np.float32]:
        """Logits after each of the last `num_rows` ids, `[num_rows, vocab]`."""
        start = 0
        # The last token is evaluated in any case: llama.cpp takes no empty batch, and its logits are wanted.
        for old, new in zip(self._ids, ids[: len(ids) - max(num_rows, 1)], strict=False):
            if old != new:
                break
            start += 1
        start = self._context.truncate(0, start)
        [rows] = self._context.decode([Span(0, start, ids[start:], num_rows)])
        self._ids = list(ids)
        self.counts.passes += counts
        self.counts.tokens += counts * (len(ids) - start)
        return rows


class BaselineWorker:
    """Judges one edge's uploads as the papers do. Use as a context manager."""

    def __init__(self, address: BrokerAddress, topics: Topics, name: str, model: Path) -> None:
        self._topics = topics
        self._model = Model(model)
        self._cache = TargetCache(self._model)
        self._lock = threading.Lock()  # measurements come from another thread than uploads
        self._begun: Begin | None = None
        self._ids: list[int] = []
        self._stopping = False
        self.connection = Connection(address)
        self._inbox = self.connection.subscribe([(topics.opens_for(name), 1), (topics.drafts_for(name), 0)])

    def __enter__(self) -> Self:
        self.connection.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.connection.stop()
        self._cache.close()
        self._model.close()

    @property
    def counts(self) -> TargetCounts:
        """What the target has done for answers so far."""
        return self._cache.counts

    def run(self) -> None:
        """Serve until `stop` is called."""
        while not self._stopping:
            message = self._inbox.get(None)
            if message is not None:
                with self._lock:
                    self._take(message)

    def stop(self) -> None:
        """Let `run` return soon; from any thread."""
        self._stopping = True
        self._inbox.wake()

    def view(
        self, prompt_ids: list[int], answer_ids: list[int], sampling: SamplingParameters
    ) -> Probabilities:
        """`p` before each token of an answer, `[num_answer, vocab]`, for measuring alone: it counts as no work."""
        with self._lock:
            rows = self._cache.rows([*prompt_ids, *answer_ids[:-1]], len(answer_ids), counts=False)
        return np.array([distribution(row, sampling) for row in rows])

    def _take(self, message: Message) -> None:
        topic = self._topics.parse(message.topic)
        assert topic.agent is not None  # both filters have one
        if topic.kind is TopicKind.OPEN:
            self._begin(topic.agent, Begin.from_bytes(message.payload))
        else:
            self._judge(topic.agent, Upload.from_bytes(message.payload))

    def _begin(self, edge: str, begin: Begin) -> None:
        self._begun, self._ids = begin, list(begin.prompt_ids)
        if self._ids[:-1]:
            self._cache.rows(self._ids[:-1], 0, counts=False)  # while the edge does the same
        if begin.streams:
            self._stream(edge, begin)

    def _stream(self, edge: str, begin: Begin) -> None:
        """The target alone: a message a token."""
        for _ in range(begin.max_tokens):
            token_id = draw(self._next(), self._uniforms()[2])
            self._ids.append(token_id)
            self._reply(edge, token_id)
            if self._model.ends_generation(token_id):
                return

    def _judge(self, edge: str, upload: Upload) -> None:
        if self._begun is None or upload.answer != self._begun.answer:
            return
        self._ids += upload.kept_ids
        p = self._next()
        q = unpack(upload.entries, len(p))
        token_id = judge_as_published(p, q, upload.token_id, self._uniforms())
        self._ids.append(token_id)
        self._reply(edge, token_id)

    def _next(self) -> Probabilities:
        """`p` after all that is known, `[vocab]`."""
        assert self._begun is not None
        row = self._cache.rows(self._ids, 1)[0]
        return distribution(row, SamplingParameters(temperature=self._begun.temperature))

    def _uniforms(self) -> npt.NDArray[np.float64]:
        assert self._begun is not None
        return verdict_uniforms(self._begun.seed, len(self._ids))

    def _reply(self, edge: str, token_id: int) -> None:
        assert self._begun is not None
        reply = Reply(self._begun.answer, token_id).to_bytes()
        self.connection.publish(self._topics.verdict(edge), reply, alias=True)
