"""Holds the divergence at the risk the user set. In: the books of answers. Out: a threshold that moves, a guard. Pure.

A token's loss is `beta` if it was skipped and 0 if it was asked about or is the target model's own. Two things
keep the mean loss at the risk:

- **The threshold** follows the losses, as adaptive conformal inference does (Gibbs and Candès, arXiv:2106.00170):
  `logit(threshold)` moves by `step * (risk - loss)` a token. On the logit a step is worth as much to an estimator
  whose useful thresholds lie near 0.01 as to one where they lie near 0.3.
  In a text that a program reads (JSON, a tool call) tokens are held to a fixed share of the risk beside.
- **The guard** bounds what has not been audited yet. The *debt* is the largest sum of `loss - risk` over any stretch
  of tokens that ends now (Page's cumulative sum: `debt = max(0, debt + loss - risk)`). A token is skipped only
  where the debt would stay within `MAX_DEBT` even if it, and every skipped token whose audit has not come, turned
  out wholly wrong.

So over any T tokens in a row, from any text, any pair of models and any estimator, however late audits come, the
audited mean is at most

    risk + MAX_DEBT / T,   which is risk + 0.005 for T = 2,000.

This is a worst case, not an average: skipping needs the permission of the guard, and asking never adds to the debt.
No controller that lets more than `MAX_DEBT` tokens wait for their audit could promise as much. The price is that runs
are sent for their audit earlier (`max_run`), and that a sure token waits for an audit where audits are slow to come:
asking about it would take as long, or longer.

Unverified tokens are in no mean and move nothing. A skipped token whose audit has still not come when its answer
ends (frames are lost) is charged what audited ones have cost of late, and the risk at least, so that losing
verdicts gains nothing. The promise is about audited tokens alone. It holds across answers, pairs of models and, with a
memory (`memory.py`), restarts; after a power cut, which loses the debt since it was last written, a stretch across
the cut may cost twice `MAX_DEBT`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_agent.ledger import Origin, Record
from edge_agent.policy import MAX_RUN_TOKENS, Choice

# 0.005 over 2,000 tokens, in wholly wrong tokens.
MAX_DEBT = 10.0
# The first tokens of an agent that knows nothing yet: skip only what is all but certain.
DEFAULT_START = 0.02
# Larger steps waste more by swinging, smaller ones run into the guard; of 0.25, 0.5, 0.7 and 1 this one skips most on
# the demo's pair (docs/experiments.md). A wholly wrong token takes two fifths off a small threshold.
_STEP = 0.5
# With the debt beyond this it is the guard that holds the risk, and a threshold that is far too high would stay so for
# good, since what it then asks about costs nothing: it falls by this many times the risk a token instead of rising.
_NEAR_LIMIT, _FALL = 0.8 * MAX_DEBT, 4.0
# Where the threshold stops: beyond, it would take thousands of tokens to come back from.
_LEAST, _MOST = 0.001, 0.999
# One wrong token spoils a text that a program reads, and most tokens of such a text are certain anyway. So the mean
# that prose allows itself is not spent there on the few in doubt: none is skipped whose uncertainty is above this
# share of the risk (docs/experiments.md: what it keeps, and what it costs).
_STRUCTURED_SHARE = 0.5
# A run is sent for its audit when this share of what may be skipped unaudited has been. Earlier costs frames and
# saves no time; later, a board that is slower than the network would have to wait, too (docs/experiments.md).
_SEND_AT = 0.8
# What an unaudited token is charged follows the last few hundred audited ones.
_COST_STEP = 1 / 200
# Thresholds of this many other pairs and estimators are kept: a fleet's few targets, not a history.
_MAX_KEPT = 8


@dataclass(frozen=True)
class Learned:
    """What a controller has learned, to go on from: `thresholds` by subject, the one in use last."""

    risk: float
    debt: float = 0.0
    unaudited_cost: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)


class RiskController:
    """A policy whose threshold follows the audited loss; risk 0 skips nothing.

    The agent has one and keeps it: debt and thresholds are its memory, over all its answers. An answer lends it
    its books while it lasts (`follow`, `end`), one answer at a time; the controller only reads them.
    """

    def __init__(self, risk: float, start: float = DEFAULT_START) -> None:
        self.risk = risk
        self.threshold = -1.0
        self._debt = 0.0  # over all tokens before those in `_waiting`
        self._unaudited_cost = 1.0
        self._thresholds: dict[str, float] = {}
        self._subject = ""
        self._waiting: list[Record] = []  # from the first one on whose audit has not come, in order
        self._records: Sequence[Record] = ()
        self._num_read = 0
        self._structured = False
        self.turn_to("", start)

    # -------------------------------------------------------------------------------- one answer's tokens

    def follow(self, records: Sequence[Record]) -> None:
        """An answer begins; `records` are its tokens, as they are committed and audited."""
        self.end()
        self._records = records

    def choose(self, uncertainty: float, *, structured: bool = False) -> Choice:
        """Skip where threshold and guard allow it, await audits where they will most likely make the guard do so."""
        self._structured = structured
        self._read()
        if uncertainty > min(self.threshold, self._cap):
            return Choice.ASK
        if self._allows_one_more(1.0):
            return Choice.SKIP
        return Choice.AWAIT if self._allows_one_more(self._unaudited_cost) else Choice.ASK

    @property
    def _cap(self) -> float:
        """No token above this uncertainty is skipped, whatever the threshold."""
        return _STRUCTURED_SHARE * self.risk if self._structured else 1.0

    @property
    def max_run(self) -> int:
        """Most of what may be skipped unaudited, so that the audit can be back before the rest is used up."""
        most = _SEND_AT * (MAX_DEBT - self._debt)
        return max(1, min(MAX_RUN_TOKENS, math.floor(most / max(1.0 - self.risk, 0.01))))

    def end(self) -> None:
        """The answer is over: no more audits come, and what they would have told is charged."""
        self._read()
        for record in self._waiting:
            self._charge(max(self.risk, self._unaudited_cost) if record.loss is None else record.loss)
        self._waiting = []
        self._records, self._num_read = (), 0

    def _read(self) -> None:
        """Take in what was committed and audited since, in the order of the text."""
        new = self._records[self._num_read :]
        self._num_read += len(new)
        self._waiting += [record for record in new if record.origin is not Origin.UNVERIFIED]
        num_known = 0
        for record in self._waiting:
            loss = record.loss
            if loss is None:
                break
            self._charge(loss)
            if record.origin is Origin.SKIPPED:
                self._unaudited_cost += _COST_STEP * (loss - self._unaudited_cost)
            num_known += 1
        del self._waiting[:num_known]

    def _allows_one_more(self, unaudited_loss: float) -> bool:
        """Whether the debt would bear a wholly wrong token, if each one without its audit came to this loss."""
        debt = self._debt
        for record in self._waiting:
            debt = max(0.0, debt + (unaudited_loss if record.loss is None else record.loss) - self.risk)
        return debt + 1.0 - self.risk <= MAX_DEBT

    def _charge(self, loss: float) -> None:
        self._debt = max(0.0, self._debt + loss - self.risk)
        if self.risk > 0:
            if self._debt > _NEAR_LIMIT:
                step = -_FALL * self.risk - loss
            elif self.threshold > self._cap:
                step = 0.0  # it is not the threshold that holds tokens back: what they cost says nothing about it
            else:
                step = self.risk - loss
            moved = math.log(self.threshold / (1.0 - self.threshold)) + _STEP * step
            self.threshold = _within(1.0 / (1.0 + math.exp(-moved)))

    # ------------------------------------------------------------------------------------ the agent's memory

    def turn_to(self, subject: str, start: float) -> None:
        """From now on judge another pair, or by another estimator: the threshold is another one, the debt stays.

        `start` is where the threshold starts of a subject that is not remembered.
        """
        if self.risk == 0:
            return
        self._remember()
        self._subject = subject
        self.threshold = self._thresholds.get(subject, _within(start))

    def learned(self) -> Learned:
        """What to go on from after a restart; between answers, when nothing waits for its audit."""
        self._remember()
        return Learned(self.risk, self._debt, self._unaudited_cost, dict(self._thresholds))

    def recall(self, learned: Learned) -> None:
        """Go on from what was learned before; what was learned at another risk is left aside."""
        if learned.risk != self.risk or self.risk == 0:
            return
        self._debt = min(MAX_DEBT, max(0.0, learned.debt))
        self._unaudited_cost = min(1.0, max(0.0, learned.unaudited_cost))
        self._thresholds = {subject: _within(value) for subject, value in learned.thresholds.items()}
        self.threshold = self._thresholds.get(self._subject, self.threshold)

    def _remember(self) -> None:
        """Keep the threshold in use, as the newest."""
        if self._subject:
            self._thresholds.pop(self._subject, None)
            self._thresholds[self._subject] = self.threshold
            for oldest in list(self._thresholds)[:-_MAX_KEPT]:
                del self._thresholds[oldest]


def _within(threshold: float) -> float:
    return min(_MOST, max(_LEAST, threshold))
