"""What is said where nobody watches. In: events, warnings, the fleet. Out: plain lines and JSON values. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cloud_broker_worker.monitor.fleet import AgentView, AnswerEnded, Came, Event, Fleet, Reported, WorkerView
from cloud_broker_worker.monitor.printable import printable
from cloud_broker_worker.monitor.trace import Origin, Trace
from cloud_broker_worker.monitor.warn import Warned, warnings
from cloud_broker_worker.monitor.words import Vocabulary, answer_pieces, marked
from schemas.messages import AgentMetrics, Usage


def event_line(event: Event, vocabulary: Vocabulary | None, *, with_text: bool) -> str:
    """One event as a line; `with_text` adds an answer's text, each token with the mark of its origin."""
    if isinstance(event, AnswerEnded):
        line = f"answer   {event.agent}  {_usage_line(event.trace.heard)}"
        if with_text:
            line += f"\n         {marked(answer_pieces(event.trace, vocabulary))}"
        return line
    if isinstance(event, Reported):
        return f"metrics  {event.agent}  {_answers(event.metrics)}: {_usage_line(event.metrics.usage)}"
    if isinstance(event, Came):
        model = f" with {printable(event.model)}" if event.model else ""
        return f"online   {event.name}  {event.kind}{model}"
    return f"offline  {event.name}  {event.kind}"


def event_value(event: Event, vocabulary: Vocabulary | None, *, with_text: bool) -> dict[str, Any]:
    """One event as a JSON value."""
    if isinstance(event, AnswerEnded):
        trace = event.trace
        value = {"event": "answer", "agent": event.agent, "worker": trace.worker, "usage": _heard(trace)}
        return value | ({"trace": trace_value(trace, vocabulary)} if with_text else {})
    if isinstance(event, Reported):
        return {"event": "metrics", "agent": event.agent, **event.metrics.model_dump()}
    if isinstance(event, Came):
        return {"event": "online", event.kind: event.name, "model": event.model}
    return {"event": "offline", event.kind: event.name}


def warning_line(warned: Warned, *, is_over: bool = False) -> str:
    """A warning that begins or is over, as a line."""
    return f"{'over' if is_over else 'warning':<8} {warned.who}  {warned.text}"


def warning_value(warned: Warned, *, is_over: bool = False) -> dict[str, Any]:
    """The same as a JSON value."""
    return {"event": "warning over" if is_over else "warning", **asdict(warned)}


def snapshot(fleet: Fleet, now_s: float) -> dict[str, Any]:
    """All that is known, as a JSON value."""
    return {
        "event": "snapshot",
        "tokens_per_second": fleet.tokens_per_second(now_s),
        "figures": asdict(fleet.figures),
        "agents": [agent_value(view, now_s) for _, view in sorted(fleet.agents.items())],
        "workers": [worker_value(view, now_s) for _, view in sorted(fleet.workers.items())],
        "warnings": [asdict(warned) for warned in warnings(fleet, now_s)],
    }


def agent_snapshot(fleet: Fleet, name: str, now_s: float, vocabulary: Vocabulary | None) -> dict[str, Any]:
    """All that is known of one agent, its last answer token by token."""
    view = fleet.agents.get(name)
    if view is None:
        return {"event": "snapshot", "agent": name, "online": None}
    trace = None if view.trace is None else trace_value(view.trace, vocabulary)
    warned = [asdict(each) for each in warnings(fleet, now_s) if each.who == name]
    return {"event": "snapshot", **agent_value(view, now_s), "trace": trace, "warnings": warned}


def agent_value(view: AgentView, now_s: float) -> dict[str, Any]:
    """What is known of one agent."""
    last = view.recent[-1] if view.recent else None
    return {
        "agent": view.name,
        "online": view.is_online,
        "status": None if view.status is None else view.status.model_dump(mode="json"),
        "answers": view.num_answers,
        "answering": view.is_answering,
        "tokens_per_second": view.tokens.per_second(now_s),
        "risk": None if last is None else last.risk,
        "threshold": None if last is None else last.threshold,
        "figures": asdict(view.figures),
    }


def worker_value(view: WorkerView, now_s: float) -> dict[str, Any]:
    """What is known of one worker."""
    return {
        "worker": view.name,
        "online": view.is_online,
        "stale": view.is_stale(now_s),
        "status": None if view.status is None else view.status.model_dump(mode="json"),
        "metrics": None if view.metrics is None else view.metrics.model_dump(),
        "drafts_per_second": view.drafts.per_second(now_s),
        "reply_median_ms": view.reply_median_ms,
    }


def trace_value(trace: Trace, vocabulary: Vocabulary | None) -> dict[str, Any]:
    """One answer as it was heard; `text` is null without a vocabulary."""
    return {
        "worker": trace.worker,
        "ended": trace.ended,
        "tokens": [
            {"position": place, "id": token.token_id, "origin": token.origin.value}
            for place, token in trace.tokens
        ],
        "text": None
        if vocabulary is None
        else "".join(piece.text for piece in answer_pieces(trace, vocabulary)),
    }


def _answers(metrics: AgentMetrics) -> str:
    last = printable(metrics.request_id)
    return last if metrics.answers == 1 else f"{metrics.answers} answers up to {last}"


def _heard(trace: Trace) -> dict[str, Any]:
    """What frames tell of an answer's usage; what they cannot tell is left out."""
    return trace.heard.model_dump(
        exclude={"seconds", "bytes_up", "bytes_down", "round_trip_median_ms", "round_trip_p99_ms"}
    )


def _usage_line(usage: Usage) -> str:
    counts = {
        Origin.SKIPPED: usage.skipped,
        Origin.ACCEPTED: usage.accepted,
        Origin.RECOVERED: usage.recovered,
        Origin.BONUS: usage.bonus,
        Origin.UNVERIFIED: usage.unverified,
    }
    parts = [f"{usage.tokens} tokens" + (f" in {usage.seconds:.2f} s" if usage.seconds else "")]
    parts += [f"{count} {origin.value}" for origin, count in counts.items() if count]
    if usage.bytes_up is not None and usage.bytes_down is not None:
        parts.append(f"{usage.bytes_up} bytes up, {usage.bytes_down} down")
    if usage.round_trip_median_ms is not None:
        parts.append(f"round trip {usage.round_trip_median_ms:.1f} ms")
    if usage.divergence is not None:
        parts.append(f"divergence {usage.divergence:.4f}")
    return ", ".join(parts)
