"""The papers' board over MQTT. In: prompts. Out: answers, a token at a time, as published.

HLM uploads the distribution of every token; U-HLM (arXiv:2412.12687) skips where its uncertainty is at or under a
threshold; CU-HLM (arXiv:2505.11788) uploads the k likeliest entries. The draft token is drawn from the full
distribution in all of them. It stays on the board where it is skipped; else the worker's token takes its place.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from benchmarks.paper.counts import Produced
from benchmarks.paper.divergence import Judged, losses
from benchmarks.paper.frames import Begin, Reply, Upload
from benchmarks.paper.methods import Method
from benchmarks.paper.processes import BaselineProcess
from benchmarks.paper.upload import chosen_entries, pack, unpack
from edge_agent.drafter import Drafter
from edge_agent.prediction import predict
from edge_agent.uncertainty import SampledPerturbation
from runtime.llama import Context, ContextOptions, Model
from runtime.mqtt import BrokerAddress, Connection
from runtime.sampling import draw
from runtime.seeds import Stream, generator
from schemas.distribution import Probabilities
from schemas.errors import LinkError
from schemas.messages import Prompt
from schemas.sampling import SamplingParameters
from schemas.topics import Topics

# The slowest reply is that to a whole vocabulary over NB-IoT: seconds.
_REPLY_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 20.0


@dataclass
class _Answer:
    """One answer under way: what is kept, and of each token how it came to be (for the divergence)."""

    number: int
    prompt_ids: list[int]
    ids: list[int] = field(default_factory=list)
    drawn_from: list[Probabilities] = field(default_factory=list)
    uploads: list[bytes | None] = field(default_factory=list)  # None: skipped
    num_told: int = 0  # the worker knows so many of `ids`


class BaselineEdge:
    """Answers with the papers' methods, or has the target answer alone. Use as a context manager."""

    def __init__(
        self,
        address: BrokerAddress,
        topics: Topics,
        name: str,
        *,
        model: Path,
        method: Method,
        sampling: SamplingParameters,
        worker: BaselineProcess,
    ) -> None:
        self._topics, self._name, self._method = topics, name, method
        self._sampling, self._worker = sampling, worker
        self.model = Model(model)
        self._context = Context(self.model, ContextOptions(self.model.context_length, max_outputs=1))
        self._drafter = Drafter(self._context)
        self._num_begun = 0
        self._connection = Connection(address)
        self._replies = self._connection.subscribe([(topics.verdict(name), 0)])

    def __enter__(self) -> Self:
        self._connection.start()
        self._connection.expect_connected(_CONNECT_TIMEOUT_S)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._connection.stop()
        self._context.close()
        self.model.close()

    def answer(self, prompt: Prompt, seed: int, *, measures_loss: bool) -> Produced:
        """One answer; raises LinkError where the worker does not reply.

        `measures_loss`: the target is asked aside for the divergence, which the papers' methods do not measure.
        """
        prompt_ids = self.model.chat_prompt_ids([turn.model_dump() for turn in prompt.messages or ()])
        max_tokens = prompt.max_tokens or self._drafter.capacity - len(prompt_ids)
        self._num_begun += 1
        self._replies.drain()
        answer = _Answer(self._num_begun, prompt_ids)
        up, down = self._bytes()
        started_s = time.monotonic()
        self._begin(answer, seed, max_tokens)
        if self._method.streams:
            self._receive_all(answer, max_tokens)
        else:
            self._draft_all(answer, max_tokens, generator(seed, Stream.DRAFT))
        seconds = time.monotonic() - started_s
        after = self._bytes()
        lost = self._losses(answer) if measures_loss else []
        num_skipped = answer.uploads.count(None)
        return Produced(
            prompt_ids=prompt_ids,
            ids=answer.ids,
            num_skipped=num_skipped,
            num_sent=len(answer.ids) - num_skipped,
            num_free=0,
            num_unverified=0,
            losses=lost,
            seconds=seconds,
            bytes_up=after[0] - up,
            bytes_down=after[1] - down,
        )

    def _begin(self, answer: _Answer, seed: int, max_tokens: int) -> None:
        """Tell the worker of the prompt."""
        begin = Begin(
            answer.number,
            self._method.streams,
            self._sampling.temperature,
            seed,
            max_tokens,
            tuple(answer.prompt_ids),
        )
        self._connection.publish(self._topics.open(self._name, self._worker.name), begin.to_bytes(), qos=1)

    def _receive_all(self, answer: _Answer, max_tokens: int) -> None:
        while len(answer.ids) < max_tokens and not self._ended(answer):
            answer.ids.append(self._receive(answer))

    def _draft_all(self, answer: _Answer, max_tokens: int, rng: np.random.Generator) -> None:
        """Predict, draw, judge, keep or ask, token by token."""
        estimate = SampledPerturbation(rng)
        logits = self._drafter.restart(answer.prompt_ids)
        while True:
            prediction = predict(logits[: self.model.num_meant], self._sampling)
            draft_id = draw(prediction.q, rng.random())
            answer.drawn_from.append(prediction.q)
            threshold = self._method.threshold
            if threshold is not None and estimate(prediction, draft_id) <= threshold:
                answer.ids.append(draft_id)
                answer.uploads.append(None)
            else:
                self._ask(answer, draft_id, prediction.q)
            if len(answer.ids) == max_tokens or self._ended(answer):
                return
            logits = self._drafter.advance([answer.ids[-1]])

    def _ask(self, answer: _Answer, draft_id: int, q: npt.NDArray[np.float32]) -> None:
        """Upload, wait, and take the worker's token."""
        entries = pack(q, chosen_entries(q, self._method.num_entries))
        kept_ids = tuple(answer.ids[answer.num_told :])
        upload = Upload(answer.number, kept_ids, draft_id, entries).to_bytes()
        topic = self._topics.draft(self._name, self._worker.name)
        # The alias saves them 27 bytes a message: how a topic is written is no part of their method.
        self._connection.publish(topic, upload, alias=True)
        answer.ids.append(self._receive(answer))
        answer.uploads.append(entries)
        answer.num_told = len(answer.ids)

    def _receive(self, answer: _Answer) -> int:
        while (message := self._replies.get(_REPLY_TIMEOUT_S)) is not None:
            reply = Reply.from_bytes(message.payload)
            if reply.answer == answer.number:
                return reply.token_id
        raise LinkError(f"{self._worker.name} gave no token within {_REPLY_TIMEOUT_S:.0f} s")

    def _ended(self, answer: _Answer) -> bool:
        return bool(answer.ids) and self.model.ends_generation(answer.ids[-1])

    def _bytes(self) -> tuple[int, int]:
        return self._connection.bytes_sent or 0, self._connection.bytes_received or 0

    def _losses(self, answer: _Answer) -> list[float]:
        if self._method.streams:
            return [0.0] * len(answer.ids)
        judged = [
            Judged(q, None if entries is None else unpack(entries, len(q)))
            for q, entries in zip(answer.drawn_from, answer.uploads, strict=True)
        ]
        return losses(self._worker.view(answer.prompt_ids, answer.ids, self._sampling), answer.ids, judged)
