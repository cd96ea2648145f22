"""The binary frames as values. In and out: plain data; `codec` turns them into bytes and back.

Positions are indices into the answer's token ids, the prompt's first token being 0. Example: a prompt of
5 tokens, then two skipped tokens and one in doubt: the draft has position 5 and a run of two, and asks about
position 7. An accepted verdict with a bonus token then makes 9 tokens known to the worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from schemas.distribution import TruncatedDistribution
from schemas.sampling import SamplingParameters
from schemas.vocabulary import Fingerprint

MAX_SESSION = 2**32 - 1
MAX_EPOCH = 2**32 - 1
MAX_POSITION = 2**24 - 1
MAX_TOKEN_ID = 2**24 - 1
MAX_DEADLINE_MS = 600_000
MAX_RUN = 4096
MAX_PROMPT = 2**17
MAX_REASON_BYTES = 512
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Open:
    """Agent to worker: a session. The worker is to know `prompt_ids` and judge with `sampling`."""

    session: int
    vocabulary: Fingerprint
    sampling: SamplingParameters
    seed: int
    max_length: int  # prompt and answer together, in tokens, at most
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class Doubt:
    """The token in doubt: `q_hat`, which of its tokens was drawn, and how long the agent waits."""

    q_hat: TruncatedDistribution
    drawn_index: int
    deadline_ms: int

    @property
    def token_id(self) -> int:
        """The draft token."""
        return int(self.q_hat.token_ids[self.drawn_index])

    @property
    def weight(self) -> int:
        """The draft token's weight in `q_hat`, in 256ths."""
        return int(self.q_hat.weights[self.drawn_index])


@dataclass(frozen=True)
class Draft:
    """Agent to worker: the kept tokens of a run and, unless it is sent for its audit alone, the one in doubt.

    `position` is that of the run's first token. `run_weights` are the kept tokens' weights in the `q_hat`
    they were drawn from, in 256ths (1 to 256). `final` ends the session.
    """

    session: int
    epoch: int
    position: int
    run_ids: tuple[int, ...]
    run_weights: tuple[int, ...]
    doubt: Doubt | None
    final: bool = False

    @property
    def end(self) -> int:
        """The position after the last token, the one in doubt included."""
        return self.position + len(self.run_ids) + (self.doubt is not None)


class Outcome(Enum):
    """What a verdict says of the token in doubt; AUDITED: there was none."""

    ACCEPTED = 0
    RECOVERED = 1
    AUDITED = 2


@dataclass(frozen=True)
class Verdict:
    """Worker to agent: the answer to the draft of the same session, epoch and position.

    `token_id` is the recovered token, or the bonus token after an accepted one, if there is any.
    `betas` are the rejection probabilities of the run's tokens, the one in doubt last (see `audit`).
    """

    session: int
    epoch: int
    position: int
    outcome: Outcome
    token_id: int | None
    betas: bytes


@dataclass(frozen=True)
class Ready:
    """Worker to agent: the session is open and `known` tokens are in its hands."""

    session: int
    known: int


@dataclass(frozen=True)
class Refused:
    """Worker to agent: the session cannot be, and why, in one line for the user."""

    session: int
    reason: str


@dataclass(frozen=True)
class Resync:
    """Worker to agent: a draft did not follow on; the worker knows `known` tokens (0: no such session)."""

    session: int
    epoch: int
    known: int


AgentFrame = Open | Draft
WorkerFrame = Verdict | Ready | Refused | Resync
