"""The real pair over mutual TLS, set up by the commands of an operator; each end is given its one file."""

from __future__ import annotations

import threading

import pytest

from cloud_broker_worker.provision.revocation import revoke
from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.worker import Worker
from edge_agent.agent import Agent
from edge_agent.ledger import Origin
from edge_agent.settings import AgentSettings
from schemas.messages import Prompt
from schemas.topics import Role
from tests.end_to_end.stage import DRAFT_MODEL, PATIENCE_S, TARGET_MODEL, VERIFIED
from tests.fleet import Fleet
from tests.mqtt_helpers import DEADLINE_S, wait_lost

pytestmark = pytest.mark.end_to_end


def test_a_board_asks_over_mutual_tls_and_once_it_is_revoked_it_goes_on_alone():
    with Fleet({"board-7": Role.AGENT, "cloud-1": Role.WORKER}) as fleet:
        cloud = WorkerSettings(credentials=fleet.files["cloud-1"], model=TARGET_MODEL, threads=1)
        with Worker(cloud) as worker:
            assert worker.connection.wait_connected(DEADLINE_S), worker.connection.last_error
            thread = threading.Thread(target=worker.run)
            thread.start()
            board = AgentSettings(
                credentials=fleet.files["board-7"],
                model=DRAFT_MODEL,
                threads=1,
                verdict_timeout_s=PATIENCE_S,
                threshold=-1,
                max_tokens=24,
                seed=7,
            )
            try:
                with Agent(board) as agent:
                    asked = origins(agent)
                    assert asked & set(VERIFIED)
                    assert Origin.UNVERIFIED not in asked
                    assert revoke(fleet.folder, "board-7")
                    wait_lost(agent.connection)
                    assert origins(agent) == {Origin.UNVERIFIED}
            finally:
                worker.stop()
                thread.join(DEADLINE_S)


def origins(agent: Agent) -> set[Origin]:
    """Where the tokens of an answer come from."""
    _, pieces = agent.answer(Prompt(id="q", text="I need a table for two in Oakland."))
    return {piece.origin for piece in pieces}
