"""The page's tables. In: rows. Out: Markdown. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.paper import cost_model, methods
from benchmarks.paper.cost_model import PAPER_VOCABULARY, Times
from benchmarks.paper.counts import Sums
from benchmarks.paper.links import LINKS, Link
from cloud_broker_worker.baselines import upload_bytes

Rows = Mapping[str, Sums]


def calls(rows: Rows, target: Sums) -> str:
    """What a method makes of all calls."""
    head = (
        "method",
        "right",
        "kept",
        "skipped",
        "no upload",
        "target calls",
        "target tokens",
        "bytes up",
        "down",
    )
    body = [
        (
            name,
            f"{sums.accuracy:.1%} ± {_standard_error(sums):.1%}",
            f"{sums.accuracy / target.accuracy:.1%}",
            f"{sums.per_token('skipped'):.1%}",
            f"{1 - sums.per_token('sent'):.1%}",
            f"{sums.per_token('target_passes'):.2f}",
            f"{sums.per_token('target_tokens'):.2f}",
            f"{sums.per_token('bytes_up'):,.1f}",
            f"{sums.per_token('bytes_down'):,.1f}",
            _divergence(sums),
        )
        for name, sums in rows.items()
    ]
    return _table((*head, "divergence"), body)


def over_link(rows: Rows) -> str:
    """What a method makes of one link."""
    head = (
        "method",
        "tokens/s",
        "bytes up",
        "bytes down",
        "target calls",
        "no upload",
        "unverified",
        "calls",
    )
    body = [
        (
            name,
            f"{sums.tokens_per_s:,.3g}",
            f"{sums.per_token('bytes_up'):,.1f}",
            f"{sums.per_token('bytes_down'):,.1f}",
            f"{sums.per_token('target_passes'):.2f}",
            f"{1 - sums.per_token('sent'):.1%}",
            f"{sums.per_token('unverified'):.1%}",
            str(sums.answers),
        )
        for name, sums in rows.items()
    ]
    return _table(head, body)


def link_name(link: Link) -> str:
    """A link with its figures."""
    rates = (_rate(link.up_bits_s), _rate(link.down_bits_s))
    return f"{link.name}: {link.round_trip_s * 1000:g} ms, {rates[0]} up, {rates[1]} down"


def cost_model_inputs(rows: Rows, num_vocabulary: int) -> dict[str, tuple[float, float]]:
    """By method: the share of tokens sent, and the bytes that one of them is charged."""
    inputs = {}
    for name, sums in rows.items():
        if name in {methods.EDGE.name, methods.TARGET.name} or not sums.sent:
            continue
        if name.startswith("ours"):
            charged = sums.payload_up / sums.sent
        else:
            charged = upload_bytes(methods.PAPER_K if name.startswith("cu-") else num_vocabulary)
        inputs[name] = (sums.per_token("sent"), charged)
    return inputs


def cost_model_times(rows: Rows) -> Times:
    """The models' times, from each alone."""
    alone = (rows[methods.EDGE.name], rows[methods.TARGET.name])
    return Times(*(1 / sums.tokens_per_s for sums in alone))


def cost_model_gains(rows: Rows, num_vocabulary: int, vocabulary: int, link: Link) -> dict[str, float]:
    """Throughput over full upload, by method, in a vocabulary of that size."""
    assert link.up_bits_s is not None
    times, full_bytes = cost_model_times(rows), upload_bytes(vocabulary)
    return {
        name: cost_model.gain(
            times,
            share,
            full_bytes if charged == upload_bytes(num_vocabulary) else charged,
            full_bytes,
            link.up_bits_s,
        )
        for name, (share, charged) in cost_model_inputs(rows, num_vocabulary).items()
    }


def cost_model_table(rows: Rows, num_vocabulary: int) -> str:
    """Share skipped, compression and gain a link, for the pair's vocabulary and the papers'."""
    times = cost_model_times(rows)
    full_bytes = {size: upload_bytes(size) for size in (num_vocabulary, PAPER_VOCABULARY)}
    head = ["method", "no upload", "bytes a sent token"]
    for size in full_bytes:
        head.append(f"compressed, {size:,}")
        head += [f"gain {link.name}, {size:,}" for link in LINKS]
    gains = {
        (size, link.name): cost_model_gains(rows, num_vocabulary, size, link)
        for size in full_bytes
        for link in LINKS
    }
    body = []
    for name, (share, charged) in cost_model_inputs(rows, num_vocabulary).items():
        cells = [name, f"{1 - share:.1%}", f"{charged:,.1f}"]
        for size, full in full_bytes.items():
            own = full if charged == upload_bytes(num_vocabulary) else charged
            cells.append(f"{cost_model.compression(own, full):.1%}")
            cells += [f"{gains[size, link.name][name]:,.1f}" for link in LINKS]
        body.append(tuple(cells))
    said = f"Draft model {times.draft_s * 1000:.2f} ms a token, target model {times.target_s * 1000:.2f} ms."
    return f"{said}\n\n{_table(tuple(head), body)}"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _standard_error(sums: Sums) -> float:
    return math.sqrt(sums.accuracy * (1 - sums.accuracy) / sums.answers)


def _divergence(sums: Sums) -> str:
    return "-" if sums.divergence is None else f"{sums.divergence:.4f}"


def _rate(bits_s: float | None) -> str:
    if bits_s is None:
        return "no limit"
    return f"{bits_s / 1e6:g} Mbit/s" if bits_s >= 1e6 else f"{bits_s / 1e3:g} kbit/s"
