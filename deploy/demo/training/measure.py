"""How good a pair is, by the models that will run. In: two GGUF files, held-out dialogues. Out: the figures.

Everything goes through llama.cpp, so that a quantised file is judged as it is used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deploy.demo.training.corpus import CallKind, Dialogue, call_keys, render
from runtime.llama import Context, ContextOptions, Logits, Model, Span

Rows = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

END_OF_TEXT_ID, ASSISTANT_ID, CALL_ID, END_ID = 0, 2, 3, 5
# The longest dialogue of the data set has 1,902 tokens; what lies beyond the models' context is cut.
MAX_DIALOGUE_TOKENS = 1280
# The longest recorded call has under 200 tokens; a model that has not ended by then is wrong already.
MAX_CALL_TOKENS = 200
TEMPERATURE = 0.7
# A kind of call with fewer training examples than this counts as rare.
RARE_BELOW = 300


@dataclass
class Score:
    """Sums over positions; `mean` divides them."""

    total: float = 0.0
    count: int = 0

    def add(self, values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> None:
        """Add one value for each position."""
        self.total += float(values.sum())
        self.count += values.size

    @property
    def mean(self) -> float:
        """The mean, 0 where nothing was added."""
        return self.total / self.count if self.count else 0.0


@dataclass
class ModelFigures:
    """One model's figures: loss in nats a token, over all tokens and over those that an agent generates."""

    loss: Score = field(default_factory=Score)
    agent_loss: Score = field(default_factory=Score)
    calls: Counter[str] = field(default_factory=Counter)
    calls_right: Counter[str] = field(default_factory=Counter)


@dataclass
class PairFigures:
    """A pair's figures. `beta` is over what an agent generates, `beta_all` over all positions, at TEMPERATURE.

    A draft token's rejection probability, averaged over draft tokens drawn from `q`, is
    `sum(max(q - p, 0))`: the total variation between the two distributions. So one figure stands for both.
    """

    draft: ModelFigures = field(default_factory=ModelFigures)
    target: ModelFigures = field(default_factory=ModelFigures)
    agree: Score = field(default_factory=Score)
    agree_all: Score = field(default_factory=Score)
    beta: Score = field(default_factory=Score)
    beta_all: Score = field(default_factory=Score)


class Reader:
    """One model over one dialogue at a time."""

    def __init__(self, path: Path, *, num_threads: int = 1) -> None:
        self._model = Model(path)
        options = ContextOptions(
            num_cells=MAX_DIALOGUE_TOKENS + MAX_CALL_TOKENS, max_outputs=512, num_threads=num_threads
        )
        self._context = Context(self._model, options)

    def close(self) -> None:
        """Free context and weights."""
        self._context.close()
        self._model.close()

    def tokenize(self, dialogue: Dialogue) -> list[int]:
        """A dialogue's ids, `<|endoftext|>` before it, cut at MAX_DIALOGUE_TOKENS."""
        ids = [END_OF_TEXT_ID, *self._model.tokenize(render(dialogue), special=True)]
        return ids[:MAX_DIALOGUE_TOKENS]

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, control tokens left out."""
        return call_text(self._model, token_ids)

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """Logits after each token of a dialogue, `[num_tokens, vocab]`; the dialogue stays in the cache."""
        self._context.truncate(0, 0)
        return self._context.decode([Span(0, 0, token_ids, num_logits=len(token_ids))])[0]

    def greedy_call(self, length: int, first_logits: Logits) -> list[int]:
        """The call that follows the first `length` tokens in the cache; what lay behind them is forgotten."""
        self._context.truncate(0, length)
        call_ids: list[int] = []
        logits = first_logits
        while len(call_ids) < MAX_CALL_TOKENS:
            token_id = int(logits.argmax())
            if token_id in {END_ID, END_OF_TEXT_ID}:
                break
            call_ids.append(token_id)
            [rows] = self._context.decode([Span(0, length + len(call_ids) - 1, [token_id], num_logits=1)])
            logits = rows[0]
        return call_ids


def measure_pair(
    draft: Reader,
    target: Reader,
    dialogues: Sequence[Dialogue],
    *,
    training_kinds: Counter[CallKind],
) -> PairFigures:
    """Read every dialogue with both models, and try every tool call in it."""
    figures = PairFigures()
    for dialogue in dialogues:
        token_ids = target.tokenize(dialogue)
        agent = agent_positions(token_ids)
        draft_logits, target_logits = draft.logits(token_ids), target.logits(token_ids)
        _add_losses(figures.draft, draft_logits, token_ids, agent)
        _add_losses(figures.target, target_logits, token_ids, agent)
        _add_pair(figures, draft_logits[:-1], target_logits[:-1], agent)
        calls = _recorded_calls(dialogue, token_ids, training_kinds)
        _try_calls(figures.draft, draft, calls, draft_logits)
        _try_calls(figures.target, target, calls, target_logits)
    return figures


def agent_positions(token_ids: Sequence[int]) -> Mask:
    """Which of the tokens after the first an agent generates: the text and the end of its turns, and its calls.

    `<|user|> a <|end|> <|assistant|> b <|end|>` gives `a` no, `<|end|>` no, `<|assistant|>` no, `b` yes,
    `<|end|>` yes.
    """
    wanted = np.zeros(len(token_ids) - 1, bool)  # [num_tokens - 1]
    ours = False
    for index, token_id in enumerate(token_ids[1:]):
        wanted[index] = ours
        if END_OF_TEXT_ID < token_id < END_ID:
            ours = token_id in {ASSISTANT_ID, CALL_ID}
            wanted[index] = False
        elif token_id == END_ID:
            ours = False
    return wanted


def log_softmax(logits: Logits, temperature: float = 1.0) -> Rows:
    """`[n, vocab]` logits to log probabilities, float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    rows: Rows = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return rows


def _add_losses(figures: ModelFigures, logits: Logits, token_ids: Sequence[int], agent: Mask) -> None:
    followers = np.asarray(token_ids[1:])  # [num_tokens - 1]
    losses = -log_softmax(logits[:-1])[np.arange(followers.size), followers]
    figures.loss.add(losses)
    figures.agent_loss.add(losses[agent])


def _add_pair(figures: PairFigures, draft_logits: Logits, target_logits: Logits, agent: Mask) -> None:
    q = np.exp(log_softmax(draft_logits, TEMPERATURE))  # [n, vocab]
    p = np.exp(log_softmax(target_logits, TEMPERATURE))  # [n, vocab]
    beta = np.maximum(q - p, 0.0).sum(axis=-1)
    agree = draft_logits.argmax(axis=-1) == target_logits.argmax(axis=-1)
    figures.beta_all.add(beta)
    figures.beta.add(beta[agent])
    figures.agree_all.add(agree)
    figures.agree.add(agree[agent])


@dataclass(frozen=True)
class _RecordedCall:
    """A call in a dialogue: after which token it starts, what it says, and how often training showed its kind."""

    opening: int  # index of its `<|call|>`
    text: str
    kind: str


def _recorded_calls(
    dialogue: Dialogue, token_ids: Sequence[int], training_kinds: Counter[CallKind]
) -> list[_RecordedCall]:
    """The calls that start within the tokens, which may end before the dialogue does."""
    openings = [index for index, token_id in enumerate(token_ids) if token_id == CALL_ID]
    texts = [(text, result) for (role, text), (_, result) in pairwise(dialogue) if role == "call"]
    return [
        _RecordedCall(opening, text, _kind(text, result, training_kinds))
        for opening, (text, result) in zip(openings, texts[: len(openings)], strict=True)
    ]


def _kind(call: str, result: str, training_kinds: Counter[CallKind]) -> str:
    name, keys = json.loads(call)["call"], call_keys(call, result)
    shown = sum(count for (other, known), count in training_kinds.items() if other == name and keys <= known)
    return "never" if shown == 0 else "rarely" if shown < RARE_BELOW else "often"


def _try_calls(figures: ModelFigures, reader: Reader, calls: Sequence[_RecordedCall], logits: Logits) -> None:
    """Generate each call of the dialogue in the cache after what was truly said before it.

    The last first, because each try forgets what lay behind it in the cache.
    """
    for call in reversed(calls):
        text = reader.text(reader.greedy_call(call.opening + 1, logits[call.opening]))
        figures.calls[call.kind] += 1
        figures.calls_right[call.kind] += same_call(text, call.text)


def call_text(model: Model, token_ids: Sequence[int]) -> str:
    """The text of generated token ids, control tokens left out."""
    return b"".join(model.piece(token_id) for token_id in token_ids).decode("utf-8", "replace")


def same_call(text: str, recorded: str) -> bool:
    """Whether a generated call says exactly what the recorded one does, as parsed JSON."""
    try:
        return bool(json.loads(text) == json.loads(recorded))
    except ValueError:
        return False
