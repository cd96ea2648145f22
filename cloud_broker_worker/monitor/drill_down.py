"""One agent from near by: its question, its answer with each token's origin, its figures. Pure.

In: the agent's view, a vocabulary if there is one. Out: rich renderables.
"""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from cloud_broker_worker.monitor.fleet import AgentView, Fleet
from cloud_broker_worker.monitor.printable import printable
from cloud_broker_worker.monitor.render import Frame, figures_lines, header, warning_list
from cloud_broker_worker.monitor.trace import Origin, Trace
from cloud_broker_worker.monitor.warn import warnings
from cloud_broker_worker.monitor.words import Vocabulary, answer_pieces, marked, prompt_text
from runtime.marks import STYLES

_MAX_QUESTION_LINES = 3
_MIN_ANSWER_LINES = 3


def drill_down(fleet: Fleet, name: str, frame: Frame, vocabulary: Vocabulary | None) -> RenderableType:
    """Everything about one agent that fits."""
    top = header(fleet, frame)
    view = fleet.agents.get(name)
    if view is None:
        return Group(*top, Rule(name, align="left", style="dim"), Text("  not heard of yet", "dim"))
    warned = [each for each in warnings(fleet, frame.now_s) if each.who in {name, "fleet", "monitor"}]
    below = warning_list(warned, frame)
    question = _last_lines(Text(_question(view, vocabulary), "italic dim"), frame.width, _MAX_QUESTION_LINES)
    foot = [*_account(view), *([Rule("warnings", align="left", style="yellow"), *below] if below else [])]
    room = None
    if frame.height is not None:  # 2 rules; the account's lines may each wrap once
        taken = len(top) + len(question) + 2 + len(foot) + 2
        room = max(_MIN_ANSWER_LINES, frame.height - taken)
    answer = _last_lines(_answer(view, vocabulary, has_color=frame.has_color), frame.width, room)
    state = "answering" if view.is_answering else "last answer"
    return Group(
        *top,
        Rule(Text.assemble((name, "bold"), f"  {_standing(view)}"), align="left", style="dim"),
        *question,
        Rule(state, align="left", style="cyan" if view.is_answering else "dim"),
        *answer,
        *foot,
    )


def _standing(view: AgentView) -> str:
    status = view.status
    if not view.is_online:
        return "offline"
    if status is None:
        return "its status was not heard"
    worker = printable(status.worker, max_chars=64) if status.worker else "none"
    return f"worker {worker}, draft model {printable(status.model or 'unknown', max_chars=64)}"


def _question(view: AgentView, vocabulary: Vocabulary | None) -> str:
    trace = view.trace
    if trace is not None and trace.prompt_ids is not None and vocabulary is not None:
        return prompt_text(trace.prompt_ids, vocabulary)
    if view.question is not None:
        return printable(view.question, max_chars=2000, keep_lines=True)
    if trace is not None and trace.prompt_ids is not None:
        return f"a question of {trace.num_prompt} tokens; --model FILE shows it"
    return "the question was not heard"


def _answer(view: AgentView, vocabulary: Vocabulary | None, *, has_color: bool) -> Text:
    if view.trace is None:
        return Text(printable(view.completion, max_chars=8192, keep_lines=True), STYLES[Origin.UNKNOWN.value])
    pieces = answer_pieces(view.trace, vocabulary)
    if not has_color:
        return Text(marked(pieces))
    text = Text()
    for piece in pieces:
        text.append(piece.text, STYLES[piece.origin.value])
    return text


def _account(view: AgentView) -> list[RenderableType]:
    """What the answer is made of, as heard here, then as the agent says, then over its last answers."""
    lines: list[RenderableType] = [Rule(style="dim")]
    if view.trace is not None:
        lines += [_legend(view.trace), *_differences(view.trace)]
    if view.recent:
        metrics = view.recent[-1]
        num_answers = sum(each.answers for each in view.recent) + len(view.unreported)
        over = f"over the last {num_answers} answers" if num_answers > 1 else "over one answer"
        risk = "a fixed threshold" if metrics.risk is None else f"risk {metrics.risk:g}"
        lines.append(Text(f"{over}, {risk}, threshold now {metrics.threshold:.3f}:", "dim"))
        lines += figures_lines(view.figures)
    return lines


def _legend(trace: Trace) -> Text:
    line, counts = Text(), trace.counts
    for origin in Origin:
        if counts[origin] or origin in (Origin.SKIPPED, Origin.ACCEPTED, Origin.RECOVERED):
            line.append(f"{counts[origin]} {origin.value}", STYLES[origin.value] or "default").append("   ")
    if trace.divergence is not None:
        line.append(f"divergence {trace.divergence:.4f} so far", "dim")
    return line


def _differences(trace: Trace) -> list[RenderableType]:
    """Where the agent's own account says what no frame did."""
    usage = trace.usage
    if usage is None:
        return []
    unasked = usage.unverified - trace.counts[Origin.UNVERIFIED]
    unheard = usage.tokens - trace.num_settled
    said = []
    if unasked > 0:
        said.append(f"{unasked} of these are unverified, says the agent: the wire does not tell which")
    if unheard > 0:
        said.append(f"{unheard} tokens of the answer were not heard here")
    return [Text(line, "red") for line in said]


def _last_lines(text: Text, width: int, room: int | None) -> list[Text]:
    lines = list(text.wrap(Console(width=width), width))
    return lines if room is None else lines[-room:]
