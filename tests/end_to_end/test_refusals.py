"""What outsiders and broken senders can do to a worker: nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from edge_agent.settings import Mode
from runtime.llama import Model
from schemas import codec
from schemas.codebook import Codebook
from schemas.compression import BodyCodec
from schemas.distribution import TruncatedDistribution, one_hot
from schemas.frames import MAX_POSITION, Doubt, Draft, Open, Refused
from schemas.messages import Prompt
from schemas.sampling import SamplingParameters
from schemas.topics import Topics
from schemas.vocabulary import Fingerprint, Vocabulary
from tests.conftest import Connect
from tests.end_to_end.stage import TARGET_MODEL, VERIFIED, Stage, read
from tests.gguf_files import Plan, write_gguf
from tests.mqtt_helpers import listen, payloads, wait_for

pytestmark = pytest.mark.end_to_end

TOPICS = Topics()
SHORT = Prompt(id="short", text="Which museums are open today?", max_tokens=16)
EXACT: dict[str, Any] = {"mode": Mode.EXACT, "temperature": 0}
GREEDY = SamplingParameters(temperature=0)
CODEC = BodyCodec()


def opening(vocabulary: Fingerprint, session: int = 7) -> bytes:
    """A session that a worker would take."""
    return codec.encode_open(Open(session, vocabulary, GREEDY, 1, 64, (1, 2, 3)), CODEC)


def asking(token_id: int, session: int = 7, position: int = 3) -> bytes:
    """A draft about one token."""
    return codec.encode_draft(Draft(session, 0, position, (), (), Doubt(one_hot(token_id), 0, 60_000)), CODEC)


def fingerprint(path: Path, num_tokens: int | None = None) -> Fingerprint:
    """What a vocabulary is known by."""
    model = Model(path)
    table = model.token_table()
    model.close()
    return Vocabulary(table.texts, table.kinds).fingerprint(num_tokens)


def test_a_frame_under_another_agents_name_reaches_nobody(stage: Stage, connect: Connect) -> None:
    vocabulary = fingerprint(TARGET_MODEL)
    with stage.worker() as worker:
        operator = connect("operator-1", at=stage.broker)
        frames = listen(operator, TOPICS.opens_for("worker-1"), TOPICS.drafts_for("worker-1"), qos=1)
        verdicts = listen(operator, TOPICS.verdict("agent-1"), TOPICS.verdict("agent-2"))
        forger = connect("agent-2", at=stage.broker)
        forger.publish(TOPICS.open("agent-1", "worker-1"), opening(vocabulary), qos=1)
        forger.publish(TOPICS.draft("agent-1", "worker-1"), asking(5), qos=1)
        # Messages of one sender stay in order: when this one is through, those before it would be.
        forger.publish(TOPICS.open("agent-2", "worker-1"), opening(vocabulary), qos=1)
        message = frames.get(20.0)
        assert message is not None
        assert message.topic == TOPICS.open("agent-2", "worker-1")
        payloads(verdicts, 1)
        assert [session.agent for session in worker.sessions] == ["agent-2"]
        assert worker.metrics().opened == 1
        assert worker.metrics().dropped == {}


def broken_frames() -> dict[str, bytes]:
    """Frames that break one rule each, or all of them."""
    draft = asking(5)
    bomb = zstandard.ZstdCompressor().compress(bytes(100_000_000))
    q_hat = TruncatedDistribution(np.array([1, 2, 3], np.int32), np.array([200, 100, 1], np.uint16))
    return {
        "nothing": b"",
        "one byte": b"\x11",
        "text": b"GET / HTTP/1.1\r\n\r\n",
        "noise": np.random.default_rng(1).bytes(1000),
        "another version": bytes([draft[0] ^ 0xF0]) + draft[1:],
        "unknown flags": draft[:1] + b"\xf0" + draft[2:],
        "cut": draft[:-1],
        "longer": draft + b"\0",
        "a bomb": draft[:1] + b"\x01" + draft[2:6] + bomb,
        "weights that do not add up": codec.encode_draft(
            Draft(7, 0, 3, (), (), Doubt(q_hat, 0, 60_000)), CODEC
        ),
        "an id outside every vocabulary": asking(2**24 - 1),
        "a position outside every text": asking(5, position=MAX_POSITION - 2),
        "a codebook that nobody knows": codec.encode_open(
            Open(7, Fingerprint(4096, bytes(16)), GREEDY, 1, 64, (1, 2, 3)), Codebook(b"unheard of", (5,))
        ),
        "a codebook that its session does not have": codec.encode_draft(
            Draft(7, 0, 3, (5,), (1,), None), Codebook(b"unheard of", (5,))
        ),
        "a run outside every vocabulary": codec.encode_draft(Draft(7, 0, 3, (2**24 - 1,), (1,), None), CODEC),
    }


def test_broken_frames_are_counted_and_the_worker_goes_on(stage: Stage) -> None:
    with stage.worker() as worker:
        stage.publish("agent-2", TOPICS.open("agent-2", "worker-1"), opening(fingerprint(TARGET_MODEL)))
        for frame in broken_frames().values():
            stage.publish("agent-2", TOPICS.draft("agent-2", "worker-1"), frame)
            stage.publish("agent-2", TOPICS.open("agent-2", "worker-1"), frame)
        stage.publish("agent-2", TOPICS.agent_status("agent-2"), b'{"state": "asleep"}')
        with stage.agent(**EXACT) as agent:
            assert set(read(agent, SHORT).origins) <= set(VERIFIED)
        wait_for(lambda: sum(worker.metrics().dropped.values()) >= 2 * len(broken_frames()) + 1)


def test_a_token_that_only_the_target_has_is_refused(stage: Stage, connect: Connect, tmp_path: Path) -> None:
    # The target's vocabulary is padded further than the draft's: its last tokens are not shared.
    target = write_gguf(tmp_path / "target.gguf", Plan("padded", 600, 640))
    q_hat = TruncatedDistribution(np.array([5, 639], np.int32), np.array([200, 56], np.uint16))
    drafts = [
        Draft(7, 0, 3, (), (), Doubt(one_hot(639), 0, 60_000)),
        Draft(7, 1, 3, (), (), Doubt(q_hat, 0, 60_000)),
        Draft(7, 2, 3, (4, 639), (1, 1), None),
    ]
    with stage.worker(model=target):
        connection = connect("agent-1", at=stage.broker)
        replies = listen(connection, TOPICS.verdict("agent-1"))
        connection.publish(TOPICS.open("agent-1", "worker-1"), opening(fingerprint(target, 610)), qos=1)
        for draft in drafts:
            connection.publish(TOPICS.draft("agent-1", "worker-1"), codec.encode_draft(draft, CODEC))
        frames = [codec.decode_worker_frame(payload) for payload in payloads(replies, 1 + len(drafts))]
        assert all(isinstance(frame, Refused) for frame in frames[1:])
