"""The demo's own questions. In: prompts.toml. Out: checked prompts, held out from the models' training."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from schemas.messages import ChatMessage, Prompt

PROMPTS_FILE = Path(__file__).with_name("prompts.toml")


class DemoPrompt(BaseModel):
    """A conversation that a model is to continue; `next` is the role that speaks next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1)
    turns: tuple[ChatMessage, ...] = Field(min_length=1)
    next: Literal["assistant", "call"] = "assistant"

    def as_prompt(self, request_id: str, **options: Any) -> Prompt:
        """The prompt to ask an agent; `options` are further fields of it, such as `max_tokens`.

        The models' chat template lets the assistant speak next, unless an empty turn opens for another role.
        """
        opened = () if self.next == "assistant" else (ChatMessage(role=self.next, content=""),)
        return Prompt(id=request_id, messages=(*self.turns, *opened), **options)


def load_prompts(file: Path = PROMPTS_FILE) -> tuple[DemoPrompt, ...]:
    """All prompts of a file, in its order. Raises pydantic's ValidationError for one that is not as it should be."""
    prompts = tomllib.loads(file.read_text(encoding="utf-8"))["prompt"]
    return TypeAdapter(tuple[DemoPrompt, ...]).validate_python(prompts)
