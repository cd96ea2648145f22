"""Broker, workers and proxy, for as long as the benchmark runs. In: models. Out: edges that answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.paper.baseline_edge import BaselineEdge
from benchmarks.paper.hunch_edge import HunchEdge
from benchmarks.paper.links import LOOPBACK, Link
from benchmarks.paper.methods import Kind
from benchmarks.paper.plan import Cell
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
_PATIENCE_S = 60.0

Edge = HunchEdge | BaselineEdge


class Stage:
    """Everyone but the boards. A proxy stands between them and the broker, where their link is to be slow."""

    topics = Topics()

    def __init__(
        self, broker: PrivateBroker, proxy: TcpProxy, hunch: HunchProcess, paper: BaselineProcess, tap: Tap
    ) -> None:
        self.hunch, self.paper, self.tap = hunch, paper, tap
        self._broker, self._proxy = broker, proxy

    def edge(self, cell: Cell, profile: Path) -> Edge:
        """A cell's board, not yet connected."""
        if cell.method.kind is Kind.HUNCH:
            settings = self.agent_settings(cell.link, cell.temperature, profile)
            return HunchEdge(settings, cell.method, self.paper)
        return BaselineEdge(
            address(self._broker, PAPER_BOARD, self._port(cell.link)),
            self.topics,
            PAPER_BOARD,
            model=DRAFT_MODEL,
            method=cell.method,
            sampling=SamplingParameters(temperature=cell.temperature),
            worker=self.paper,
        )

    def agent_settings(self, link: Link, temperature: float, profile: Path | None) -> AgentSettings:
        """An agent's settings: its defaults, but for what must be said.

        Without a link nothing is timed, and a busy machine must not make a token unverified.
        """
        patience: dict[str, Any] = {"verdict_timeout_s": _PATIENCE_S} if link is LOOPBACK else {}
        return AgentSettings(
            **patience,
            **login(self._broker, BOARD, self._port(link)),
            model=DRAFT_MODEL,
            threads=1,
            temperature=temperature,
            profile=profile,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
        )

    def _port(self, link: Link) -> int:
        """Where boards connect, the proxy told what to be."""
        if link is LOOPBACK:
            return self._broker.port
        link.apply(self._proxy)
        return self._proxy.port


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
