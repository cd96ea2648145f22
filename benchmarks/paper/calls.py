"""The task: tool calls in recorded dialogues. In: a file of dialogues. Out: prompts, and what is right.

One dialogue a line, a JSON list of `[role, text]`, roles `user`, `assistant`, `call`, `result`; a `call` is JSON.
Every other dialogue is kept for calibration, so that nothing is fitted on what is judged.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.training.corpus import Dialogue, read_dialogue_file
from deploy.demo.training.measure import same_call
from schemas.errors import ConfigurationError
from schemas.messages import ChatMessage, Prompt


@dataclass(frozen=True)
class Call:
    """A call to be generated after what was truly said before it. `recorded` is the one in the dialogue."""

    prompt: Prompt
    recorded: str

    def is_right(self, text: str) -> bool:
        """Whether a generated call has the recorded one's name and all of its arguments, and no others."""
        return same_call(text, self.recorded)


@dataclass(frozen=True)
class Corpus:
    """Calls to be judged on, in the file's order, and dialogues to calibrate on."""

    calls: tuple[Call, ...]
    calibration: tuple[Dialogue, ...]

    def digest(self) -> str:
        """A name for what is calibrated on."""
        return hashlib.blake2b(repr(self.calibration).encode(), digest_size=6).hexdigest()


def read_corpus(file: Path) -> Corpus:
    """Raises ConfigurationError for a file that cannot be read or has too little in it."""
    dialogues = list(read_dialogue_file(file))
    calls = [call for number, dialogue in enumerate(dialogues[::2]) for call in _calls(dialogue, number)]
    calibration = [dialogue for dialogue in dialogues[1::2] if any(role == "call" for role, _ in dialogue)]
    if not calls or not calibration:
        raise ConfigurationError(f"{file} holds no calls in its odd or its even lines; give more dialogues")
    return Corpus(tuple(calls), tuple(calibration))


def spread(calls: tuple[Call, ...], num_calls: int) -> tuple[Call, ...]:
    """That many calls at even distances; all where there are fewer."""
    count = min(num_calls, len(calls))
    return tuple(calls[index * len(calls) // count] for index in range(count))


def write_calibration_text(file: Path, dialogues: tuple[Dialogue, ...]) -> None:
    """The dialogues as `edge-agent calibrate` reads them; only calls count, as only they are generated here."""
    with file.open("w", encoding="utf-8") as lines:
        for dialogue in dialogues:
            messages = [
                {"role": role, "content": text, "weight": int(role == "call")} for role, text in dialogue
            ]
            lines.write(json.dumps({"messages": messages}) + "\n")


def _calls(dialogue: Dialogue, number: int) -> list[Call]:
    calls = []
    for index, (role, text) in enumerate(dialogue):
        if role == "call" and index > 0:
            said = [ChatMessage(role=role, content=text) for role, text in dialogue[:index]]
            # An empty turn opens for its role: the models' chat template lets the assistant speak otherwise.
            messages = (*said, ChatMessage(role="call", content=""))
            name = f"dialogue-{number}-{index}"
            calls.append(Call(Prompt(id=name, messages=messages), text))
    return calls
