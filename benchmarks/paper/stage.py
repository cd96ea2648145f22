"""Broker, workers and proxy, for as long as the benchmark runs. In: models. Out: edges that answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.paper.baseline_edge import BaselineEdge
from benchmarks.paper.hunch_edge import HunchEdge
from benchmarks.paper.methods import Kind, Method
from benchmarks.paper.processes import BaselineProcess, HunchProcess
from benchmarks.paper.tap import Tap
from benchmarks.tcp_proxy import TcpProxy
from cloud_broker_worker.private_broker import PrivateBroker
from cloud_broker_worker.settings import WorkerSettings
from deploy.demo.__main__ import DRAFT_MODEL, TARGET_MODEL
from edge_agent.settings import AgentSettings
from runtime.mqtt import BrokerAddress
from schemas.sampling import SamplingParameters
from schemas.topics import Role, Topics

BOARD, PAPER_BOARD, WORKER, PAPER_WORKER, ONLOOKER = (
    "board",
    "paper-board",
    "cloud",
    "paper-cloud",
    "onlooker",
)
_USERS = {
    BOARD: Role.AGENT,
    PAPER_BOARD: Role.AGENT,
    WORKER: Role.WORKER,
    PAPER_WORKER: Role.WORKER,
    ONLOOKER: Role.OPERATOR,
}
# Retained status messages must come in over the slowest link.
_CONNECT_TIMEOUT_S = 20.0

Edge = HunchEdge | BaselineEdge


class Stage:
    """Everyone but the boards. `proxy` stands between boards and broker."""

    topics = Topics()

    def __init__(
        self, broker: PrivateBroker, proxy: TcpProxy, hunch: HunchProcess, paper: BaselineProcess, tap: Tap
    ) -> None:
        self.proxy, self.hunch, self.paper, self.tap = proxy, hunch, paper, tap
        self._broker = broker

    def edge(self, method: Method, temperature: float, profile: Path | None) -> Edge:
        """A board of that method, not yet connected."""
        if method.kind is Kind.HUNCH:
            return HunchEdge(self.agent_settings(temperature, profile), method, self.paper)
        return BaselineEdge(
            address(self._broker, PAPER_BOARD, self.proxy.port),
            self.topics,
            PAPER_BOARD,
            model=DRAFT_MODEL,
            method=method,
            sampling=SamplingParameters(temperature=temperature),
            worker=self.paper,
        )

    def agent_settings(self, temperature: float, profile: Path | None) -> AgentSettings:
        """An agent's settings: its defaults, but for what must be said."""
        return AgentSettings(
            **login(self._broker, BOARD, self.proxy.port),
            model=DRAFT_MODEL,
            threads=1,
            temperature=temperature,
            profile=profile,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
        )


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Start all; all has ended when this does."""
    with (
        PrivateBroker(_USERS) as broker,
        TcpProxy(broker.port, broker.host) as proxy,
        HunchProcess(
            WorkerSettings(**login(broker, WORKER, broker.port), model=TARGET_MODEL, threads=1)
        ) as hunch,
        BaselineProcess(
            address(broker, PAPER_WORKER, broker.port), Stage.topics, PAPER_WORKER, TARGET_MODEL
        ) as paper,
        Tap(address(broker, ONLOOKER, broker.port), Stage.topics, (WORKER, PAPER_WORKER)) as tap,
    ):
        yield Stage(broker, proxy, hunch, paper, tap)


def address(broker: PrivateBroker, name: str, port: int) -> BrokerAddress:
    """Where a user connects."""
    return BrokerAddress(broker.host, port, username=name, password=broker.credentials[name], client_id=name)


def login(broker: PrivateBroker, name: str, port: int) -> dict[str, Any]:
    """The same as settings."""
    return {
        "name": name,
        "broker": f"mqtt://{name}@{broker.host}:{port}",
        "password": broker.credentials[name],
    }
