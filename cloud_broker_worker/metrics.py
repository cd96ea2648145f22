"""What a worker measures. In: what it counts anyway, and the passes of its model. Out: readings for Prometheus.

The worker's loop writes, the thread that answers Prometheus only reads: a value may be a message older than the
one beside it, never a wrong one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

from cloud_broker_worker.scheduler import Batch, Scheduler
from cloud_broker_worker.sessions import SessionTable
from runtime.link_metrics import LinkMetrics
from runtime.measurements import COUNT_BOUNDS, SECONDS_BOUNDS, Histogram, Kind, Metric, Reading
from runtime.mqtt import Connection
from schemas.frames import Outcome

INFO = Metric("hunch_worker_info", Kind.GAUGE, "1; what runs here", ("version", "model"))
SESSIONS = Metric("hunch_worker_sessions", Kind.GAUGE, "sessions kept now")
MAX_SESSIONS = Metric("hunch_worker_max_sessions", Kind.GAUGE, "sessions that may be kept")
WAITING = Metric("hunch_worker_waiting_frames", Kind.GAUGE, "frames that wait for a pass of the target model")
DRAFTS = Metric("hunch_worker_drafts_total", Kind.COUNTER, "drafts that were judged", ("outcome",))
AUDITED = Metric(
    "hunch_worker_audited_tokens_total", Kind.COUNTER, "skipped tokens whose rejection probability was told"
)
OPENED = Metric("hunch_worker_opened_sessions_total", Kind.COUNTER, "sessions that agents have opened")
EVICTED = Metric(
    "hunch_worker_evicted_sessions_total",
    Kind.COUNTER,
    "idle sessions that gave way because the table was full",
)
RESYNCED = Metric(
    "hunch_worker_resyncs_total", Kind.COUNTER, "drafts whose beginning was missing here, so it was asked for"
)
REFUSED = Metric("hunch_worker_refusals_total", Kind.COUNTER, "frames that were answered with a refusal")
DROPPED = Metric(
    "hunch_worker_dropped_messages_total",
    Kind.COUNTER,
    "messages that led to no work, by reason",
    ("reason",),
)
FAILURES = Metric("hunch_worker_target_failures_total", Kind.COUNTER, "times that the target model failed")
PASS_SECONDS = Metric(
    "hunch_worker_pass_seconds",
    Kind.HISTOGRAM,
    "time of one pass of the target model; the rate of the sum is the load",
)
PASS_TOKENS = Metric("hunch_worker_pass_tokens", Kind.HISTOGRAM, "tokens evaluated in one pass")
PASS_SESSIONS = Metric("hunch_worker_pass_sessions", Kind.HISTOGRAM, "sessions served by one pass")
QUEUE_SECONDS = Metric(
    "hunch_worker_queue_seconds", Kind.HISTOGRAM, "how long an opening or a draft waited for its pass"
)
VERDICT_SECONDS = Metric(
    "hunch_worker_verdict_seconds",
    Kind.HISTOGRAM,
    "from a draft's arrival until the verdicts of its pass were out",
)
LINK = LinkMetrics("hunch_worker")

METRICS = (
    *(INFO, SESSIONS, MAX_SESSIONS, WAITING),
    *(DRAFTS, AUDITED, OPENED, EVICTED, RESYNCED, REFUSED, DROPPED, FAILURES),
    *(PASS_SECONDS, PASS_TOKENS, PASS_SESSIONS, QUEUE_SECONDS, VERDICT_SECONDS),
    *LINK.all,
)


class Metrics:
    """Reads a worker's counts, and keeps the distributions that nothing else does."""

    def __init__(
        self,
        *,
        model: str,
        counts: Counter[str],
        dropped: Counter[str],
        sessions: SessionTable,
        scheduler: Scheduler,
        connection: Connection,
    ) -> None:
        self._model, self._counts, self._dropped = model, counts, dropped
        self._sessions, self._scheduler, self._connection = sessions, scheduler, connection
        self._distributions = {
            PASS_SECONDS: Histogram(SECONDS_BOUNDS),
            PASS_TOKENS: Histogram(COUNT_BOUNDS),
            PASS_SESSIONS: Histogram(COUNT_BOUNDS),
            QUEUE_SECONDS: Histogram(SECONDS_BOUNDS),
            VERDICT_SECONDS: Histogram(SECONDS_BOUNDS),
        }

    def evaluated(self, num_sessions: int, num_tokens: int, seconds: float) -> None:
        """Enter one pass of the target model."""
        self._distributions[PASS_SESSIONS].add(num_sessions)
        self._distributions[PASS_TOKENS].add(num_tokens)
        self._distributions[PASS_SECONDS].add(seconds)

    def replied(self, batch: Batch, began_s: float, ended_s: float) -> None:
        """Enter how long the frames of a batch took; times are time.monotonic()."""
        for work, arrived_at_s in zip(batch.work, batch.arrived_at_s, strict=True):
            if work.draft is not None or work.num_evaluated == 0:  # not the later pieces of a prompt
                self._distributions[QUEUE_SECONDS].add(began_s - arrived_at_s)
            if work.draft is not None:
                self._distributions[VERDICT_SECONDS].add(ended_s - arrived_at_s)

    def read(self) -> Iterator[Reading]:
        """All values now; from any thread."""
        counts = self._counts
        yield Reading(INFO, 1, (version("hunch"), self._model))
        yield Reading(SESSIONS, len(self._sessions))
        yield Reading(MAX_SESSIONS, self._sessions.max_sessions)
        yield Reading(WAITING, len(self._scheduler))
        for outcome in Outcome:
            yield Reading(DRAFTS, counts[outcome.name.lower()], (outcome.name.lower(),))
        yield Reading(AUDITED, counts["audited_tokens"])
        yield Reading(OPENED, counts["opened"])
        yield Reading(EVICTED, self._sessions.num_evicted)
        yield Reading(RESYNCED, counts["resynced"])
        yield Reading(REFUSED, counts["refused"])
        # Reasons are the code's own words, a dozen; no peer can add one.
        for reason, count in sorted(dict(self._dropped).items()):
            yield Reading(DROPPED, count, (reason,))
        yield Reading(FAILURES, counts["target_failures"])
        for metric, histogram in self._distributions.items():
            yield Reading(metric, histogram)
        yield from LINK.read(self._connection)
