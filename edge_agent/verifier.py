"""The agent's side of a session: open, ask, wait, move on. In: drafts. Out: verdicts, in time or never.

Nothing here blocks longer than the verdict timeout, and after one that ran out nothing blocks at all until
the worker, or another one, gives a sign of life: the answer goes on unverified meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.ledger import Ledger, Settled
from edge_agent.placement import Placement
from edge_agent.round_trips import RoundTrips, UsualRoundTrip
from edge_agent.workers import WorkerDirectory
from runtime.mqtt import Connection, Message
from schemas import codec
from schemas.codebook import Codebook
from schemas.compression import BodyCodec
from schemas.errors import HunchError, LinkError, WireError
from schemas.frames import Doubt, Draft, Open, Ready, Refused, Resync, Verdict
from schemas.messages import WorkerStatus, parse_message
from schemas.sampling import SamplingParameters
from schemas.topics import Topics

logger = logging.getLogger(__name__)

# A run that the network held up is opened anew as a longer prompt rather than sent as one huge draft.
_MAX_PENDING = 512
# Session numbers stay below this, one byte each in every frame. A number comes round again after that many
# sessions, long after the last frame of the one before, and opening it replaces what a worker still holds.
_NUM_SESSIONS = 128
# A broken connection is noticed at least this often while waiting for a verdict.
_LINK_CHECK_S = 0.05
# Drafts and verdicts travel at QoS 0: what is waited for is sent again this often, or at half of a shorter timeout.
_AGAIN_S = 1.0
# An audit that is on its way for this many usual round trips is most likely lost: a question then brings it again.
_LATE = 4.0


@dataclass(frozen=True)
class SessionTerms:
    """What a worker must know to judge an answer."""

    sampling: SamplingParameters
    seed: int
    max_length: int


@dataclass
class _Session:
    """A session at a worker; suspect from a missed verdict until the next sign of life."""

    worker: str
    boot: int | None
    bodies: BodyCodec
    suspect_since_s: float | None = None


class Verifier:
    """Asks workers about one answer at a time."""

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        agent: str,
        directory: WorkerDirectory,
        *,
        verdict_timeout_s: float,
        on_worker: Callable[[str | None, str | None], None] = lambda _worker, _note: None,
        codebook: Callable[[], Codebook | None] = lambda: None,
    ) -> None:
        self._connection, self._topics, self._agent = connection, topics, agent
        self._directory, self._timeout_s = directory, verdict_timeout_s
        self._on_worker, self._codebook = on_worker, codebook
        self._statuses = connection.subscribe([(topics.all_worker_status(), 1)])
        self._verdicts = connection.subscribe([(topics.verdict(agent), 0)])
        self._plain = BodyCodec()
        # Workers, each since its start, that refused the codebook although they had said that they hold it.
        self._declined: set[tuple[str, int | None]] = set()
        self._next_session = secrets.randbelow(_NUM_SESSIONS)
        self._opened: dict[int, str] = {}  # at which worker, by session number
        self._session: _Session | None = None
        self._placement = Placement(directory)
        self._ledger: Ledger | None = None
        self._terms: SessionTerms | None = None
        self._asked: tuple[Doubt, float] | None = None
        self._last_sent: Draft | None = None
        # Ids below this mean the same to the worker in use, or the last one that was.
        self.num_shared = directory.num_tokens
        self._told: tuple[str | None, str | None] = (None, None)
        self.round_trips = RoundTrips()
        self._usual = UsualRoundTrip()
        self.num_refused = 0

    def wait_for_worker(self, timeout_s: float) -> bool:
        """Wait until there is someone to ask: at a start the retained status messages take a moment."""
        deadline_s = time.monotonic() + timeout_s
        self._connection.wait_connected(timeout_s)
        while not self._placement.candidates(now := time.monotonic()):
            if now >= deadline_s or not self._connection.connected:
                return False
            self._hear_status(self._statuses.get(min(_LINK_CHECK_S, deadline_s - now)))
        return True

    def begin(self, ledger: Ledger, terms: SessionTerms) -> None:
        """A new answer: open a session for it, without waiting."""
        self._ledger, self._terms = ledger, terms
        self._session, self._asked = None, None
        self._placement.begin(time.monotonic())
        self.round_trips = RoundTrips()
        self.poll()

    def poll(self) -> None:
        """Take in what has come, and open or move the session where that is due. Never waits."""
        for message in self._statuses.drain():
            self._hear_status(message)
        for message in self._verdicts.drain():
            self._take(message)
        self._mend_session()

    def ask(self, doubt: Doubt) -> bool:
        """Send a draft about a token; False where nobody can be asked now."""
        self.poll()
        if not self._can_send or self._ledger is None:
            return False
        self._asked = (doubt, time.monotonic())
        return self._send(self._ledger.ask(doubt))

    def wait(self) -> Verdict | None:
        """The verdict on what was asked; None if it does not come in time, and the worker is then suspect."""
        assert self._asked is not None
        _, asked_at_s = self._asked
        again_at_s = asked_at_s + self._again_s
        while (left_s := asked_at_s + self._timeout_s - time.monotonic()) > 0:
            message = self._verdicts.get(min(left_s, _LINK_CHECK_S))
            settled = None if message is None else self._take(message)
            if settled is not None and settled.in_time:
                took_s = time.monotonic() - asked_at_s
                self.round_trips.seconds.append(took_s)
                self._usual.note(took_s)
                self._asked = None
                return settled.verdict
            if self._session is None or not self._connection.connected:
                break
            again_at_s = self._send_again(again_at_s)
        self._miss()
        if self._session is not None and self._connection.connected:
            self._session.suspect_since_s = time.monotonic()
            self._placement.distrust(self._session.worker)
            self._tell(None, f"worker {self._session.worker} gave no verdict within {self._timeout_s:g} s")
        return None

    def audit(self) -> None:
        """Send the run for its audit alone; the reply is taken in whenever it comes."""
        self.poll()
        if self._can_send and self._ledger is not None:
            self._send(self._ledger.audit(final=False))

    def wait_for_audits(self, is_enough: Callable[[], bool]) -> None:
        """Take in audits until they are enough, or all are in, or so late that they are most likely lost."""
        self.poll()
        deadline_s = time.monotonic() + min(self._again_s, _LATE * self._usual.seconds)
        while self._can_send and self._ledger is not None and not is_enough():
            if not self._ledger.awaits_audit:
                if self._ledger.num_pending == 0:
                    return
                self._send(self._ledger.audit(final=False))
            if (left_s := deadline_s - time.monotonic()) <= 0:
                return
            message = self._verdicts.get(min(left_s, _LINK_CHECK_S))
            if message is not None:
                self._take(message)

    def finish(self, *, wait: bool = True) -> None:
        """End the answer: send the last run for its audit, close the session, wait for what is under way."""
        self.poll()
        deadline_s = time.monotonic() + (self._timeout_s if wait else 0.0)
        again_at_s = time.monotonic() + self._again_s
        is_sent = False
        while self._can_send and self._ledger is not None:
            if not is_sent or self._ledger.num_pending > 0:  # the latter after a resync
                is_sent = self._send(self._ledger.audit(final=True))
            left_s = deadline_s - time.monotonic()
            if not self._ledger.awaits_audit or left_s <= 0:
                break
            message = self._verdicts.get(min(left_s, _LINK_CHECK_S))
            if message is not None:
                self._take(message)
            again_at_s = self._send_again(again_at_s)
        self._session = self._ledger = self._terms = None

    @property
    def is_served(self) -> bool:
        """Whether a worker judges the answer under way, or the last one was judged to its end."""
        return self._told[0] is not None

    @property
    def _can_send(self) -> bool:
        session = self._session
        return session is not None and session.suspect_since_s is None and self._connection.connected

    # ------------------------------------------------------------------------------ what workers say

    def _hear_status(self, message: Message | None) -> None:
        if message is None:
            return
        try:
            worker = self._topics.parse(message.topic).worker
            status = parse_message(WorkerStatus, message.payload)
        except HunchError as error:
            logger.warning("ignored a worker status on %s: %s", message.topic, error)
            return
        assert worker is not None  # the filter asks for worker status alone
        self._directory.update(worker, status, message.received_at)

    def _take(self, message: Message) -> Settled | None:
        """Enter one frame into the books; returns the verdict if it is one that was waited for."""
        try:
            frame = codec.decode_worker_frame(message.payload, self._directory.num_tokens)
        except WireError as error:
            logger.warning("ignored a frame on %s: %s", message.topic, error)
            return None
        self._hear_from(self._opened.get(frame.session))
        if self._ledger is None or self._session is None or frame.session != self._ledger.session:
            return None
        match frame:
            case Verdict():
                return self._ledger.settle(frame)
            case Ready():
                pass  # a sign of life, which is all that it is for
            case Refused():
                self._refused(frame.reason)
            case Resync():
                self._resync(frame)
        return None

    def _hear_from(self, worker: str | None) -> None:
        """A sign of life, even about an answer that has ended: short ones end before a busy worker is ready."""
        if worker is None:
            return
        self._placement.trust(worker)
        session = self._session
        if session is not None and session.worker == worker and session.suspect_since_s is not None:
            session.suspect_since_s = None
            self._tell(worker, None)

    def _refused(self, reason: str) -> None:
        assert self._session is not None
        worker = self._session.worker
        self.num_refused += 1
        if self._session.bodies is not self._plain:
            # Perhaps for the codebook, which a worker that has just started anew may lack: try without.
            self._declined.add((worker, self._session.boot))
            self._open_anew()
            return
        self._session = None
        self._placement.refused(worker, time.monotonic())
        self._tell(None, f"worker {worker} refused: {reason}")

    def _resync(self, frame: Resync) -> None:
        """The worker lacks what came before: send it again, the question included, or open anew."""
        assert self._ledger is not None
        if frame.epoch != self._ledger.epoch:
            return
        if not self._ledger.resync(frame.known):
            self._open_anew()
        elif self._asked is not None:
            self._send(self._ledger.ask(self._asked[0]))

    def _open_anew(self) -> None:
        """Leave the session for a new one, and ask there again."""
        assert self._ledger is not None
        self._session = None
        self._placement.choose_at_once()
        self._mend_session()
        if self._asked is not None and self._can_send:
            self._send(self._ledger.ask(self._asked[0]))

    # ---------------------------------------------------------------------------- sessions and workers

    def _mend_session(self) -> None:
        """Open a session where there is none, or leave one that is lost for a better worker."""
        if self._ledger is None:
            return
        if not self._connection.connected:
            self._tell(None, self._connection.last_error or "not connected to a broker")
            return
        now_s = time.monotonic()
        session = self._session
        if session is not None and self._directory.boot(session.worker) != session.boot:
            self._placement.trust(session.worker)
            session = self._session = None  # it has gone, or it has started anew and knows nothing
            self._placement.choose_at_once()
        worker = None
        if session is None:
            worker = self._placement.choose(now_s)
            if not self._placement.candidates(now_s) and (why := self._placement.why_none(now_s)) is not None:
                self._tell(None, why)
        elif session.suspect_since_s is not None:
            worker = self._placement.choose(now_s, session.worker, session.suspect_since_s)
        elif self._ledger.num_pending > _MAX_PENDING:
            worker = self._placement.choose(now_s)
        else:
            self._tell(session.worker, None)
        if worker is not None:
            self._open_at(worker, now_s)

    def _open_at(self, worker: str, now_s: float) -> None:
        assert self._ledger is not None
        assert self._terms is not None
        vocabulary = self._directory.shared_vocabulary(worker)
        assert vocabulary is not None  # only such workers are candidates
        self._next_session = (self._next_session + 1) % _NUM_SESSIONS
        self.num_shared = vocabulary.num_tokens
        terms = self._terms
        prompt_ids = tuple(self._ledger.open(self._next_session))
        opening = Open(
            self._next_session, vocabulary, terms.sampling, terms.seed, terms.max_length, prompt_ids
        )
        bodies = self._bodies_for(worker)
        frame = codec.encode_open(opening, bodies)
        try:
            self._connection.publish(self._topics.open(self._agent, worker), frame, qos=1)
        except LinkError as error:
            self._tell(None, str(error))
            self._session = None
            return
        # A worker that has missed a verdict is not waited for until it says that it is ready.
        is_suspect = not self._placement.trusts(worker)
        self._session = _Session(worker, self._directory.boot(worker), bodies, now_s if is_suspect else None)
        self._opened[self._next_session] = worker
        if not is_suspect:
            self._tell(worker, None)

    def _bodies_for(self, worker: str) -> BodyCodec:
        """The codebook, where this worker holds it."""
        book, status = self._codebook(), self._directory.status(worker)
        if book is None or status is None or book.digest not in (status.codebooks or ()):
            return self._plain
        return self._plain if (worker, status.boot) in self._declined else book

    def _send(self, draft: Draft) -> bool:
        assert self._session is not None
        self._last_sent = draft
        try:
            self._publish(draft, self._session)
        except LinkError as error:
            self._miss()
            self._tell(None, str(error))
            return False
        return True

    @property
    def _again_s(self) -> float:
        return min(_AGAIN_S, self._timeout_s / 2)

    def _publish(self, draft: Draft, session: _Session) -> None:
        topic = self._topics.draft(self._agent, session.worker)
        self._connection.publish(topic, codec.encode_draft(draft, session.bodies), alias=True)

    def _send_again(self, at_s: float) -> float:
        """Send what is waited for once more when that is due; returns when it is due next.

        Either the draft was lost, or its verdict, which the worker then repeats (docs/protocol.md).
        """
        if time.monotonic() < at_s or not self._can_send or self._last_sent is None:
            return at_s
        assert self._session is not None
        with contextlib.suppress(LinkError):  # who waits sees for himself that the link is gone
            self._publish(self._last_sent, self._session)
        return time.monotonic() + self._again_s

    def _miss(self) -> None:
        """No verdict: what was asked goes unverified, and its draft is no longer waited for."""
        self._asked = None
        self.round_trips.num_missed += 1
        if self._ledger is not None:
            self._ledger.miss()

    def _tell(self, worker: str | None, note: str | None) -> None:
        """Say once when the worker in use changes, or why there is none."""
        if (worker, note) == self._told:
            return
        self._told = (worker, note)
        if note is not None and note != self._connection.last_error:  # the connection says that itself
            logger.warning("%s; going on unverified", note)
        self._on_worker(worker, note)
