"""An agent that waits for work. In: prompts on `agents/{agent}/prompt`. Out: pieces on `completion/{id}`."""

from __future__ import annotations

import logging
import time

from edge_agent.agent import Agent
from edge_agent.text import Piece
from runtime.mqtt import Message
from schemas.errors import HunchError, LinkError, WireError
from schemas.messages import Completion, Prompt, parse_message

logger = logging.getLogger(__name__)

# Pieces wait this long for more text: a message for each token would cost more than the text in it.
_FLUSH_S = 0.2
# Prompts beyond these are dropped, the oldest first; an agent answers one at a time.
_MAX_QUEUED = 64


class Service:
    """Answers prompts from MQTT, one after another, until `stop`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._prompts = agent.connection.subscribe(
            [(agent.topics.prompt(agent.settings.name), 1)], max_queued=_MAX_QUEUED
        )
        self._stopping = False

    def run(self) -> None:
        """Serve until `stop` is called."""
        while not self._stopping:
            self.step()

    def stop(self) -> None:
        """Let `run` return after the answer under way; from any thread or a signal handler."""
        self._stopping = True
        self._prompts.wake()

    def step(self) -> None:
        """Wait for a prompt and answer it."""
        message = self._prompts.get(None)
        if message is not None:
            self._serve(message)

    def _serve(self, message: Message) -> None:
        try:
            prompt = parse_message(Prompt, message.payload)
        except WireError as error:
            # Without a readable id there is no topic to answer on.
            logger.warning("ignored a prompt: %s", error)
            return
        reply = _Reply(self._agent, prompt.id)
        try:
            answer, pieces = self._agent.answer(prompt)
            for piece in pieces:
                reply.add(piece)
        except HunchError as error:
            logger.warning("prompt %s: %s", prompt.id, error)
            reply.send(finish_reason="error", error=str(error))
        else:
            reply.send(finish_reason=answer.finish_reason, usage=answer.usage)


class _Reply:
    """The completion of one prompt; text that the broker could not take stays for the next message."""

    def __init__(self, agent: Agent, request_id: str) -> None:
        self._connection = agent.connection
        self._topic = agent.topics.completion(agent.settings.name, request_id)
        self._index = 0
        self._text = ""
        self._sent_at_s = time.monotonic()

    def add(self, piece: Piece) -> None:
        self._text += piece.text
        if time.monotonic() - self._sent_at_s >= _FLUSH_S:
            self.send()

    def send(self, **end: object) -> None:
        """Publish what has gathered; `end` is what the last message adds."""
        completion = Completion.model_validate({"index": self._index, "text": self._text, **end})
        self._sent_at_s = time.monotonic()
        try:
            self._connection.publish(self._topic, completion.to_bytes(), qos=1)
        except LinkError as error:
            if end:
                logger.warning("the end of an answer could not be sent: %s", error)
            return
        self._index += 1
        self._text = ""
