"""What an operator should look at. In: the fleet and the time. Out: warnings, the gravest first. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cloud_broker_worker.monitor.fleet import AgentView, Fleet, WorkerView
from cloud_broker_worker.monitor.printable import printable

# More unverified tokens than this, of enough tokens to tell, mean that verdicts do not come as they should.
_MAX_UNVERIFIED_SHARE = 0.05
_FEW_TOKENS = 20
# A mean of rare events is no news before so many of them are to be expected: 250 tokens at a risk of 0.02.
_LEAST_EXPECTED = 5


@dataclass(frozen=True)
class Warned:
    """A warning. `kind` and `who` stay the same while it lasts; `text` may change with the figures."""

    kind: str
    who: str
    text: str


def warnings(fleet: Fleet, now_s: float) -> list[Warned]:
    """All that is to be warned of now."""
    found = [*_nobody_judges(fleet, now_s)]
    for worker in sorted(fleet.workers.values(), key=lambda view: view.name):
        found += _about_worker(worker, now_s)
    for agent in sorted(fleet.agents.values(), key=lambda view: view.name):
        found += _about_agent(agent)
    return [*found, *_about_messages(fleet)]


def _nobody_judges(fleet: Fleet, now_s: float) -> Iterator[Warned]:
    if any(agent.is_online for agent in fleet.agents.values()) and not any(
        worker.is_online and not worker.is_stale(now_s) for worker in fleet.workers.values()
    ):
        yield Warned("no worker", "fleet", "no worker is online; answers are unverified")


def _about_worker(worker: WorkerView, now_s: float) -> Iterator[Warned]:
    if not worker.is_online:
        yield Warned("offline", worker.name, "worker is offline")
    elif worker.is_stale(now_s):
        silent_s = now_s - worker.status_at_s
        yield Warned("stale", worker.name, f"worker has missed its beats for {silent_s:.0f} s")
    dropped = {} if worker.metrics is None else worker.metrics.dropped
    if dropped:
        reasons = ", ".join(
            f"{printable(reason, max_chars=40)} {count}" for reason, count in sorted(dropped.items())[:4]
        )
        yield Warned("dropped", worker.name, f"has dropped {sum(dropped.values())} messages: {reasons}")


def _about_agent(agent: AgentView) -> Iterator[Warned]:
    status = agent.status
    if not agent.is_online:
        yield Warned("offline", agent.name, "agent is offline")
    elif status is not None and status.note is not None:
        yield Warned("note", agent.name, printable(status.note))
    figures = agent.figures
    risk = agent.recent[-1].risk if agent.recent else None
    if risk is not None and figures.divergence is not None:
        # skip * beta lies in [0, 1], so its variance is at most its mean: three standard errors may be chance.
        chance = 3 * math.sqrt(max(risk, 0.0) / figures.num_judged)
        is_enough = figures.num_judged * risk >= _LEAST_EXPECTED or risk <= 0
        if is_enough and figures.divergence > risk + chance:
            text = f"divergence {figures.divergence:.4f} is over the risk of {risk:g} ({figures.num_judged} tokens)"
            yield Warned("divergence", agent.name, text)
    share = figures.unverified_share
    if share is not None and share > _MAX_UNVERIFIED_SHARE and figures.tokens >= _FEW_TOKENS:
        yield Warned("unverified", agent.name, f"{share:.0%} of the tokens are unverified")


def _about_messages(fleet: Fleet) -> Iterator[Warned]:
    if fleet.broken:
        count = sum(fleet.broken.values())
        last = printable(fleet.last_broken or "", max_chars=120)
        yield Warned("broken", "monitor", f"{count} broken messages were not believed; the last: {last}")
    if fleet.num_forgotten:
        yield Warned("forgotten", "monitor", f"{fleet.num_forgotten} names too many were forgotten")
