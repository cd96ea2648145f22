"""What an agent measures. In: its answers, and what is counted anyway. Out: readings for Prometheus.

The answering loop writes, the thread that answers Prometheus only reads: a value may be an answer older than
the one beside it, never a wrong one. While nobody asks, an answer costs some additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version

from edge_agent.ledger import Origin
from edge_agent.round_trips import RoundTrips
from edge_agent.verifier import Verifier
from runtime.link_metrics import LinkMetrics
from runtime.measurements import SECONDS_BOUNDS, Histogram, Kind, Metric, Reading
from runtime.mqtt import Connection
from schemas.messages import Usage

INFO = Metric("hunch_agent_info", Kind.GAUGE, "1; what runs here", ("version", "model", "mode"))
SERVED = Metric(
    "hunch_agent_served", Kind.GAUGE, "1 where a worker judged the last answer, or does now, else 0"
)
ANSWERS = Metric("hunch_agent_answers_total", Kind.COUNTER, "answers that have ended")
TOKENS = Metric(
    "hunch_agent_tokens_total", Kind.COUNTER, "tokens of answers, by how they came to be", ("origin",)
)
PROMPT_TOKENS = Metric("hunch_agent_prompt_tokens_total", Kind.COUNTER, "tokens of prompts")
ANSWER_SECONDS = Metric("hunch_agent_answer_seconds", Kind.HISTOGRAM, "time of one answer")
ROUND_TRIP_SECONDS = Metric(
    "hunch_agent_round_trip_seconds", Kind.HISTOGRAM, "from asking about a token to its verdict"
)
MISSED = Metric("hunch_agent_missed_verdicts_total", Kind.COUNTER, "verdicts that did not come in time")
REFUSED = Metric("hunch_agent_refusals_total", Kind.COUNTER, "sessions that workers have refused or given up")
LOSS = Metric(
    "hunch_agent_loss_total",
    Kind.COUNTER,
    "sum of skip * beta over judged tokens; divided by their number it is the audited divergence",
)
JUDGED = Metric(
    "hunch_agent_judged_tokens_total", Kind.COUNTER, "tokens of which skip * beta is known, audits included"
)
RISK = Metric(
    "hunch_agent_risk", Kind.GAUGE, "the divergence allowed, a token; absent where a fixed threshold is set"
)
THRESHOLD = Metric("hunch_agent_threshold", Kind.GAUGE, "uncertainty above which a token is asked about")
LINK = LinkMetrics("hunch_agent")

METRICS = (
    *(INFO, SERVED, ANSWERS, TOKENS, PROMPT_TOKENS, ANSWER_SECONDS),
    *(ROUND_TRIP_SECONDS, MISSED, REFUSED, LOSS, JUDGED, RISK, THRESHOLD),
    *LINK.all,
)

# Answers take longer than round trips: from a word to the longest on a slow board.
_ANSWER_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)


class Metrics:
    """Sums over all answers since the start, and what is read where it is kept."""

    def __init__(
        self,
        *,
        model: str,
        mode: str,
        risk: float | None,
        threshold: Callable[[], float],
        connection: Connection,
        verifier: Verifier | None,
    ) -> None:
        self._labels = (version("hunch"), model, mode)
        self._risk, self._threshold = risk, threshold
        self._connection, self._verifier = connection, verifier
        self._num_answers = self._num_missed = self._num_judged = self._num_prompt = 0
        self._loss = 0.0
        self._tokens = dict.fromkeys(Origin, 0)
        self._answer_s = Histogram(_ANSWER_BOUNDS)
        self._round_trip_s = Histogram(SECONDS_BOUNDS)

    def answered(self, usage: Usage, round_trips: RoundTrips) -> None:
        """Enter an answer that has ended."""
        self._num_answers += 1
        self._num_prompt += usage.prompt_tokens
        for origin in Origin:
            self._tokens[origin] += getattr(usage, origin.value)
        self._num_judged += usage.num_judged
        self._loss += usage.num_judged * (usage.divergence or 0.0)
        self._answer_s.add(usage.seconds)
        self._round_trip_s.add_all(round_trips.seconds)
        self._num_missed += round_trips.num_missed

    def read(self) -> Iterator[Reading]:
        """All values now; from any thread."""
        yield Reading(INFO, 1, self._labels)
        yield Reading(SERVED, int(self._verifier is not None and self._verifier.is_served))
        yield Reading(ANSWERS, self._num_answers)
        for origin, count in self._tokens.items():
            yield Reading(TOKENS, count, (origin.value,))
        yield Reading(PROMPT_TOKENS, self._num_prompt)
        yield Reading(ANSWER_SECONDS, self._answer_s)
        yield Reading(ROUND_TRIP_SECONDS, self._round_trip_s)
        yield Reading(MISSED, self._num_missed)
        yield Reading(REFUSED, 0 if self._verifier is None else self._verifier.num_refused)
        yield Reading(LOSS, self._loss)
        yield Reading(JUDGED, self._num_judged)
        if self._risk is not None:
            yield Reading(RISK, self._risk)
        yield Reading(THRESHOLD, self._threshold())
        yield from LINK.read(self._connection)
