"""What both ends' doctors share. In: settings of one end. Out: a doctor that knows the machine and the broker.

Each end adds its own checks to the ones in `checks_of_machine` and `checks_of_broker`.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Self

from runtime.checkup.broker_checks import BrokerChecks
from runtime.checkup.checks import Check, Finding
from runtime.checkup.machine_checks import MachineChecks
from runtime.checkup.openings import largest_opening
from runtime.checkup.rights import check_packet_size
from runtime.llama import ContextOptions, Model
from runtime.settings import HunchSettings
from schemas.vocabulary import Vocabulary


class Doctor(abc.ABC):
    """The checks of one end, in order. Use as a context manager.

    `options` says what context the end makes over its model; `chats`: it needs the model's chat template.
    """

    def __init__(
        self,
        settings: HunchSettings,
        config: Path | None,
        options: Callable[[Model], ContextOptions],
        *,
        chats: bool,
    ) -> None:
        self.topics = settings.topics
        self.machine = MachineChecks(settings, config, options)
        self.broker = BrokerChecks(settings)
        self._options, self._chats = options, chats

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.broker.close()
        self.machine.close()

    @abc.abstractmethod
    def checks(self) -> list[Check]:
        """What is looked at, in this order (docs/doctor.md)."""

    def checks_of_machine(self) -> list[Check]:
        """Settings, model and machine."""
        machine = self.machine
        return [
            Check("settings", machine.check_settings),
            Check("alone", self.broker.check_alone, ("settings",)),
            Check("model", functools.partial(machine.check_model, chats=self._chats)),
            Check("gpu", machine.check_gpu),
            Check("memory", machine.check_memory, ("alone", "model")),
            Check("context", machine.check_context, ("alone", "model", "memory")),
            Check("threads", machine.check_threads),
            Check("speed", machine.check_speed, ("context",)),
        ]

    def checks_of_broker(self) -> list[Check]:
        """The clock, which certificates need, and the way to the broker, up to what it lets through."""
        broker = self.broker
        return [
            Check("clock", self._check_clock, ("settings",)),
            Check("address", broker.check_address, ("settings",)),
            Check("port", broker.check_port, ("address",)),
            Check("certificate", broker.check_certificate, ("settings",)),
            Check("tls", broker.check_tls, ("port", "certificate")),
            Check("login", broker.check_login, ("alone", "tls")),
            Check("access", self._check_access, ("login",)),
            Check("packet_size", self._check_packet_size, ("login", "model")),
        ]

    def _check_clock(self) -> Finding:
        return self.machine.check_clock(matters=self.broker.address.uses_tls)

    @abc.abstractmethod
    def _check_access(self) -> Finding:
        """Whether the broker lets through what this end needs, and nothing more."""

    @abc.abstractmethod
    def _opening_topic(self) -> str:
        """A topic that an opening could come on."""

    def _check_packet_size(self) -> Finding:
        options = self._options(self._model)
        n_ctx = options.num_cells // options.max_sequences
        frame = largest_opening(self._vocabulary, n_ctx)
        return check_packet_size(
            self.broker.link, self._opening_topic(), frame, f"an opening of {n_ctx} tokens"
        )

    @property
    def _model(self) -> Model:
        assert self.machine.model is not None  # the model's check comes first
        return self.machine.model

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        table = self._model.token_table()
        return Vocabulary(table.texts, table.kinds)
