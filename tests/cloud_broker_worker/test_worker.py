"""What a worker's loop survives."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from cloud_broker_worker.sessions import SessionTable
from cloud_broker_worker.worker import Worker
from schemas.distribution import one_hot
from schemas.frames import Doubt, Draft, Open, Refused
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint


def test_logits_that_are_no_numbers_cost_their_session_and_not_the_worker() -> None:
    worker: Any = object.__new__(Worker)  # its loop alone: no model, no broker
    worker.sessions = SessionTable(max_sessions=2, n_ctx=50)
    worker._counts = Counter()
    for agent in ("broken", "sound"):
        opening = Open(1, Fingerprint(100, bytes(16)), SamplingParameters(), 0, 40, (1, 2, 3))
        admission = worker.sessions.open(agent, opening, set())
        worker.sessions.prefilled(admission.work)
    work = worker.sessions.admit("broken", Draft(1, 0, 3, (), (), Doubt(one_hot(9), 0, 1000))).work
    reply = worker._judge(work, np.full((2, 100), np.nan, np.float32))
    assert isinstance(reply, Refused)
    assert "the target model failed" in reply.reason
    assert [session.agent for session in worker.sessions] == ["sound"]
    assert worker._counts["target_failures"] == 1
