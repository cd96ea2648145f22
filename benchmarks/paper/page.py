"""The page. In: results. Out: docs/benchmarks.md with its plots; every figure on it comes from the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper import findings, methods, plots, tables
from benchmarks.paper.links import LINKS, LOOPBACK
from benchmarks.paper.plan import GREEDY, SAMPLED, TEMPERATURES, Size
from benchmarks.paper.results import Results
from schemas.profile import Profile

_NAMES = {GREEDY: "greedy", SAMPLED: f"at temperature {SAMPLED:g}"}


@dataclass(frozen=True)
class Setting:
    """What the page says of how it was made; `profiles` by temperature."""

    size: Size
    num_calls: int
    profiles: dict[float, Profile]
    command: str

    @property
    def num_vocabulary(self) -> int:
        """Tokens of the pair's vocabulary."""
        return self.profiles[SAMPLED].pair.draft_vocabulary.num_tokens


def write_page(output: Path, results: Results, setting: Setting) -> Path:
    """Write page and plots from what there is so far; returns the page's path."""
    folder = output / "benchmarks"
    parts = [_GUIDE, *_reached(results), _accuracy(results, folder), _links(results, folder)]
    parts += [_model(results, setting), _how(results, setting)]
    page = output / "benchmarks.md"
    output.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(part.strip() + "\n" for part in parts if part), encoding="utf-8")
    return page


_GUIDE = """
# Benchmarks: the papers' methods and ours

`make bench-paper CORPUS=dialogues.jsonl` measures this page and writes all figures on it. A board (draft model)
and a worker (target model) talk through a real Mosquitto; a proxy delays and limits the board's link.

## How to read it

**The task** is a real one: in recorded dialogues, write the tool call that comes next. A call is right when its
name and all its arguments are exactly those recorded; one wrong token spoils it. What counts is how much of the
*target model's own* accuracy is kept.

| column | what it means |
|---|---|
| right, kept | share of calls that are exactly right (± its standard error); the same over the target's share |
| skipped | share of tokens that the board kept without asking |
| no upload | share of tokens for which nothing was asked: skipped ones, and our bonus tokens, which the target adds to an accepted one |
| target calls, target tokens | passes of the target model, and tokens it evaluated, for each token of the answer; reading prompts is left out, as it is the same for all |
| bytes up, down | all that crossed the board's TCP connection for each token: MQTT, prompt and audits included |
| divergence | mean distance from the target's distribution, a token: for a skipped token its rejection probability. For the papers' methods also the bias of judging a token by another distribution than it was drawn from |
| tokens/s | all tokens over all wall time, prompt and final audit included |

**The methods.** `edge`: the draft model alone. `target`: the target model alone in the cloud, streamed a token a
message. `hlm` (arXiv:2412.12687): every token's full distribution is uploaded. `u-hlm` (the same paper): only where
the uncertainty, 20 samples at perturbed temperatures, is above a threshold. `cu-hlm` (arXiv:2505.11788): the same with
the 30 likeliest entries. Their thresholds follow from their own rule, refitted to this pair (risk-averse, risk-prone).
They get what the papers give them: 8 + 15 bits an entry, a draft token from the full distribution, one reply a token,
no run, no audit, no bonus, no compression; and, since a real worker needs them, the ids of skipped tokens. `ours`: an
agent with its defaults and a calibrated profile, at several risks.

**What the papers claim**, in simulation: 74.8 % of transmissions skipped, 97.4 % of the vocabulary compressed, 97.4 % of
the accuracy kept, up to 206 times the throughput of full upload. They charge nothing for round trips, the ids of skipped
tokens, the target's catch-up over them, or the downlink.
"""


def _reached(results: Results) -> list[str]:
    parts = ["## What is reached, and what is not"]
    for temperature in TEMPERATURES:
        rows = results.of("calls", LOOPBACK.name, temperature)
        if methods.TARGET.name in rows:
            lines = findings.on_calls(rows)
            parts.append(f"**Calls, {_NAMES[temperature]}.**\n" + "\n".join(f"- {line}" for line in lines))
    over_links = {link.name: results.of("links", link.name, SAMPLED) for link in LINKS}
    lines = findings.on_links(over_links)
    if lines:
        parts.append("**Over the links.**\n" + "\n".join(f"- {line}" for line in lines))
    return parts


def _accuracy(results: Results, folder: Path) -> str:
    parts = ["## Accuracy kept against tokens skipped"]
    for temperature in TEMPERATURES:
        rows = results.of("calls", LOOPBACK.name, temperature)
        target = rows.get(methods.TARGET.name)
        if target is None or not target.right:
            continue
        file = folder / f"kept-{temperature:g}.svg"
        curves = {name: [s for m, s in rows.items() if fits(m)] for name, fits in findings.FAMILIES.items()}
        plots.write_curves(file, target, curves)
        parts += [
            f"### {_NAMES[temperature].capitalize()}",
            f"![accuracy kept against share skipped](benchmarks/{file.name})",
            tables.calls(rows, target),
        ]
    return "\n\n".join(parts)


def _links(results: Results, folder: Path) -> str:
    parts = [
        f"## Over four links\n\nAt temperature {SAMPLED:g}. Delays are round trips, half of them each way."
    ]
    speeds = {}
    for link in LINKS:
        rows = results.of("links", link.name, SAMPLED)
        if rows:
            speeds[link.name] = {name: sums.tokens_per_s for name, sums in rows.items()}
            parts += [f"### {tables.link_name(link)}", tables.over_link(rows)]
    if not speeds:
        return ""
    plots.write_bars(folder / "throughput.svg", "tokens a second (logarithmic)", speeds)
    parts.insert(1, "![tokens a second by link and method](benchmarks/throughput.svg)")
    return "\n\n".join(parts)


def _model(results: Results, setting: Setting) -> str:
    rows = results.of("calls", LOOPBACK.name, SAMPLED)
    if not {methods.TARGET.name, methods.EDGE.name} <= set(rows):
        return ""
    return "\n\n".join(
        [
            "## On the papers' own ground: their cost model",
            (
                "A token costs the draft model's time and, where it is sent, the bits of its upload over the "
                "uplink's rate and the target model's time. Round trips, the downlink, ids of skipped tokens, "
                "catch-up and prompt cost nothing. The times are those of `edge` and `target` alone on this "
                "machine; shares and bytes are those measured on the calls at temperature "
                f"{SAMPLED:g}. The papers' uploads are charged at 23 bits an entry; ours at all bytes of its "
                "messages, ids of skipped tokens and audits included. *Gain* is throughput over that of "
                "uploading every token in full."
            ),
            tables.cost_model_table(rows, setting.num_vocabulary),
        ]
    )


def _how(results: Results, setting: Setting) -> str:
    size = setting.size
    fits = "; ".join(
        f"{_NAMES[t]} beta = {profile.linear.slope:.3f} u {profile.linear.intercept:+.3f}, thresholds "
        f"{_or_none(profile.linear.risk_averse)} and {_or_none(profile.linear.risk_prone)}, default estimator "
        f"`{profile.default_estimator}`, mean beta {profile.mean_beta:.3f} over {profile.held_out:,} held-out of "
        f"{profile.held_out + profile.fitted:,} positions"
        for t, profile in setting.profiles.items()
    )
    return f"""
## How it was measured

- Command: `{setting.command}`. Figures: [paper.csv](benchmarks/paper.csv), sums by method, temperature and link.
- The demo's pair ({setting.num_vocabulary:,} tokens of vocabulary). The odd dialogues of the file give the
  {setting.num_calls} calls, the even ones the calibration: nothing is fitted on what is judged. What the pair's fits
  came to on calls: {fits}.
- Accuracy, skipping and divergence don't depend on the link: they come from all {setting.num_calls} calls without delay.
  Over each link at most {size.link_calls} calls, ended after {size.cell_s:g} s with the call under way: the slow cells hold
  few. Each starts with a board that has answered nothing but a short warm-up.
- The divergence of our methods is what their audit says; that of the others was computed aside, by the target model over
  the finished answers, and costs them nothing.
- Broker, worker, proxy and board ran on one machine of two cores that was shared with other work: wall times are to be
  read as ratios, and those on LAN and Wi-Fi vary by a third between runs. Delay dominates on LTE and NB-IoT.
- The papers' vocabulary has 32,000 tokens, this pair's {setting.num_vocabulary:,}: a full upload is 92,000 bytes there and
  {setting.num_vocabulary * 23 // 8:,} here, so that what is measured favours full upload eightfold.
"""


def _or_none(threshold: float | None) -> str:
    return "none" if threshold is None else f"{threshold:.3f}"
