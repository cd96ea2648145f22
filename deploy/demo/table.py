"""What the demo's answers came to. In: answers. Out: a table, beside what full-vocabulary upload would cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from cloud_broker_worker.baselines import upload_bytes
from edge_agent.answer import Answer
from edge_agent.ledger import Origin, Record
from edge_agent.usage import known_losses, mean_divergence


@dataclass
class Tally:
    """Sums over answers."""

    num_vocabulary: int
    records: list[Record] = field(default_factory=list)
    round_trips_s: list[float] = field(default_factory=list)
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0

    def add(self, answer: Answer) -> None:
        """Count one finished answer in."""
        self.records += answer.ledger.records
        self.round_trips_s += answer.round_trips.seconds
        self.bytes_up += answer.usage.bytes_up or 0
        self.bytes_down += answer.usage.bytes_down or 0
        self.seconds += answer.usage.seconds

    def table(self, thresholds: list[float], risk: float) -> Table:
        """The figures; shares are of all tokens unless they say otherwise."""
        num = len(self.records)
        count = {origin: sum(record.origin is origin for record in self.records) for origin in Origin}
        num_judged = count[Origin.ACCEPTED] + count[Origin.RECOVERED]
        full_bytes = upload_bytes(self.num_vocabulary)
        table = Table(title="What it came to", title_justify="left", show_header=False)
        table.add_row("tokens", f"{num} in {self.seconds:.1f} s ({num / self.seconds:.0f} a second)")
        table.add_row("kept on the board (skipped)", f"{count[Origin.SKIPPED] / num:.1%}")
        table.add_row(
            "sent in doubt", f"{num_judged / num:.1%}, of which accepted {_share(count, num_judged)}"
        )
        table.add_row("bonus tokens from the target", f"{count[Origin.BONUS] / num:.1%}")
        table.add_row("unverified", f"{count[Origin.UNVERIFIED] / num:.1%}")
        table.add_row(
            "bytes a token, MQTT included", f"{self.bytes_up / num:.1f} up, {self.bytes_down / num:.1f} down"
        )
        table.add_row(
            "full-vocabulary upload",
            f"{full_bytes:,.0f} up a token: {full_bytes * num / max(self.bytes_up, 1):,.0f} times as much",
        )
        table.add_row("verdict round trip", self._round_trips())
        table.add_row("divergence, audited", f"{self._divergence()} (allowed: {risk:g} a token)")
        table.add_row("threshold now", ", ".join(f"{threshold:.3f}" for threshold in thresholds))
        return table

    def _round_trips(self) -> str:
        if not self.round_trips_s:
            return "none"
        median, p99 = np.percentile(np.array(self.round_trips_s) * 1000, [50, 99])
        return f"median {median:.1f} ms, p99 {p99:.1f} ms over {len(self.round_trips_s)}"

    def _divergence(self) -> str:
        """Mean of the known losses with its 95 % confidence interval."""
        divergence = mean_divergence(known_losses(self.records))
        return "unknown" if divergence is None else f"{divergence[0]:.4f} ± {divergence[1]:.4f}"


def _share(count: dict[Origin, int], num_judged: int) -> str:
    return f"{count[Origin.ACCEPTED] / num_judged:.1%}" if num_judged else "none"
