"""What an agent's controller has learned, kept over restarts. In: a folder. Out: one small file in it.

The file is written after answers, never during one, every few minutes at most and when the agent leaves: the cards that
boards start from wear out by writing. It is replaced whole, so a power cut leaves the old one or the new one.
What cannot be read or written costs one line in the log; the agent then starts as one that knows nothing yet.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_agent.controller import MAX_DEBT, Learned
from schemas.messages import Share

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 300.0
_MAX_BYTES = 1 << 16


class _State(BaseModel):
    """The file, as JSON; fields as in `Learned`."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    risk: Share
    debt: float = Field(ge=0, le=MAX_DEBT + 1)
    unaudited_cost: Share
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(max_length=64)


class Memory:
    """The file of one agent; `folder` None: nothing is kept."""

    def __init__(self, folder: Path | None, agent: str) -> None:
        self._path = None if folder is None else folder / f"agent-{agent}.json"
        self._written: Learned | None = None
        self._saved_at_s = time.monotonic()
        self._complained = False

    def load(self) -> Learned | None:
        """What was learned; None where there is nothing yet, or nothing that can be read."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                state = _State.model_validate_json(file.read(_MAX_BYTES), strict=True)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            why = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
            logger.warning("the threshold starts anew: %s: %s", self._path, why)
            return None
        self._written = Learned(**state.model_dump())
        return self._written

    def save(self, learned: Learned, *, at_once: bool = False) -> None:
        """Write it if it has changed and the last time is long enough ago, or `at_once`."""
        is_due = at_once or time.monotonic() - self._saved_at_s >= SAVE_EVERY_S
        if self._path is None or not is_due or learned == self._written:
            return
        self._saved_at_s = time.monotonic()
        beside = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                file.write(_State(**asdict(learned)).model_dump_json())
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it
            beside.replace(self._path)
        except OSError as error:
            if not self._complained:
                logger.warning("the threshold is not remembered: %s: %s", self._path, error.strerror)
            self._complained = True
            return
        self._written = learned
