"""Short answers that ask about every token, to see how long verdicts take. In: a model, a verifier. Out: seconds."""

from __future__ import annotations

from edge_agent.answer import Answer, AnswerOptions
from edge_agent.drafter import Drafter
from edge_agent.policy import FixedThreshold
from edge_agent.settings import AgentSettings
from edge_agent.truncation import truncation
from edge_agent.verifier import Verifier
from runtime.llama import Context, Model

_QUESTION = "I need a table for two."


def time_verdicts(
    settings: AgentSettings, model: Model, context: Context, verifier: Verifier, count: int
) -> list[float]:
    """The round trips of at least `count` verdicts, in seconds; fewer where one does not come in time."""
    took_s: list[float] = []
    drafter = Drafter(context)
    while len(took_s) < count:
        answer = _answer(settings, model, drafter, verifier)
        took_s += answer.round_trips.seconds
        if answer.round_trips.num_missed or not answer.round_trips.seconds:
            break
    return took_s


def _answer(settings: AgentSettings, model: Model, drafter: Drafter, verifier: Verifier) -> Answer:
    answer = Answer(
        model=model,
        drafter=drafter,
        policy=FixedThreshold(-1.0),
        estimate=lambda _prediction, _token_id: 1.0,
        verifier=verifier,
        options=AnswerOptions(
            sampling=settings.sampling,
            seed=None,
            max_tokens=8,
            stop=(),
            truncate=truncation(settings.rule()),
            deadline_ms=round(settings.verdict_timeout_s * 1000),
        ),
    )
    prompt_ids = model.text_prompt_ids(_QUESTION)[: drafter.capacity // 2]
    for _ in answer.stream(prompt_ids):
        pass
    return answer
