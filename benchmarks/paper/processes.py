"""Workers as processes of their own, that tell what their target did. In: settings. Out: counts, views.

The wire says nothing of a worker's work at the moment that an answer ends; a pipe does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Self

from benchmarks.paper.baseline_worker import BaselineWorker
from benchmarks.paper.counts import TargetCounts
from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.worker import Worker
from runtime.mqtt import BrokerAddress
from schemas.distribution import Probabilities
from schemas.errors import HunchError
from schemas.sampling import SamplingParameters
from schemas.topics import Topics

_START_S = 30.0
_END_S = 10.0
# A view of a long prompt takes a fraction of a second, on a busy machine some.
_ANSWER_S = 60.0


class WorkerProcess:
    """A worker in a process. Use as a context manager; raises HunchError where it does not come up."""

    def __init__(self, name: str, main: Callable[..., None], *arguments: object) -> None:
        self.name = name
        spawn = multiprocessing.get_context("spawn")  # a fork would share llama.cpp's and paho's threads
        self._pipe, far = spawn.Pipe()
        self._process = spawn.Process(target=main, args=(far, *arguments), name=name, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        try:
            if self._pipe.poll(_START_S) and self._pipe.recv() == "ready":
                return self
        except EOFError:
            pass
        self.__exit__()
        raise HunchError(f"the worker {self.name} did not start")

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):  # it has ended by itself
            self._pipe.send(None)
        self._process.join(_END_S)
        self._process.kill()
        self._process.join()

    def counts(self) -> TargetCounts:
        """What the target has done so far."""
        counts = self._ask("counts")
        assert isinstance(counts, TargetCounts)
        return counts

    def _ask(self, *question: object) -> Any:
        try:
            self._pipe.send(question)
            if self._pipe.poll(_ANSWER_S):
                return self._pipe.recv()
        except (EOFError, OSError):
            raise HunchError(f"the worker {self.name} has ended") from None
        raise HunchError(f"the worker {self.name} does not answer")


class HunchProcess(WorkerProcess):
    """Hunch's own worker. Its counts include the tokens of prompts, but not the passes over them."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings.name, _serve_hunch, settings)


class BaselineProcess(WorkerProcess):
    """The papers' worker."""

    def __init__(self, address: BrokerAddress, topics: Topics, name: str, model: Path) -> None:
        super().__init__(name, _serve_baseline, address, topics, name, model)

    def view(
        self, prompt_ids: list[int], answer_ids: list[int], sampling: SamplingParameters
    ) -> Probabilities:
        """See `BaselineWorker.view`."""
        view: Probabilities = self._ask("view", prompt_ids, answer_ids, sampling)
        return view


def _serve_hunch(pipe: Pipe, settings: WorkerSettings) -> None:
    with Worker(settings) as worker:

        def counts() -> TargetCounts:
            metrics = worker.metrics()
            return TargetCounts(metrics.target_passes - metrics.opened, metrics.target_tokens)

        _serve(pipe, worker, counts=counts)


def _serve_baseline(pipe: Pipe, address: BrokerAddress, topics: Topics, name: str, model: Path) -> None:
    with BaselineWorker(address, topics, name, model) as worker:
        _serve(pipe, worker, counts=lambda: worker.counts, view=worker.view)


def _serve(pipe: Pipe, worker: Worker | BaselineWorker, **answers: Callable[..., object]) -> None:
    """Run a worker, and answer questions about it, until there is a None or nobody to ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark, which ends us in its turn

    def talk() -> None:
        try:
            while (question := pipe.recv()) is not None:
                name, *arguments = question
                pipe.send(answers[name](*arguments))
        except (EOFError, OSError):
            pass
        worker.stop()

    if worker.connection.wait_connected(_START_S):
        pipe.send("ready")
    threading.Thread(target=talk, name="talk", daemon=True).start()
    worker.run()
