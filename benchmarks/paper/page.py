"""The page. In: results. Out: docs/benchmarks.md with its plots; every figure on it comes from the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper import findings, methods, plots, tables
from benchmarks.paper.cost_model import PAPER_VOCABULARY
from benchmarks.paper.links import LINKS, LOOPBACK
from benchmarks.paper.measure import LOSS_EVERY
from benchmarks.paper.plan import GREEDY, SAMPLED, TEMPERATURES, Size
from benchmarks.paper.results import Results
from cloud_broker_worker.baselines import upload_bytes
from schemas.profile import Profile

_GUIDE_FILE = Path(__file__).with_name("guide.md")
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
    parts = [
        _GUIDE_FILE.read_text(encoding="utf-8"),
        *_reached(results),
        *_accuracy(results, folder),
        *_links(results, folder),
        *_cost_model(results, setting),
        *_how(setting),
    ]
    page = output / "benchmarks.md"
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    return page


def _reached(results: Results) -> list[str]:
    parts = ["## What is reached, and what is not"]
    for temperature in TEMPERATURES:
        rows = results.of("calls", LOOPBACK.name, temperature)
        if methods.TARGET.name in rows:
            parts.append(_listed(f"**Calls, {_NAMES[temperature]}**", findings.on_calls(rows)))
    lines = findings.on_links({link.name: results.of("links", link.name, SAMPLED) for link in LINKS})
    if lines:
        parts.append(_listed("**Over the links**", lines))
    return parts


def _listed(title: str, lines: list[str]) -> str:
    return "\n".join([title, "", *(f"- {line}" for line in lines)])


def _accuracy(results: Results, folder: Path) -> list[str]:
    parts = ["## Accuracy kept against tokens skipped"]
    for temperature in TEMPERATURES:
        rows = results.of("calls", LOOPBACK.name, temperature)
        target = rows.get(methods.TARGET.name)
        if target is None or not target.right:
            continue
        file = folder / f"kept-{temperature:g}.svg"
        families = findings.FAMILIES.items()
        plots.write_curves(
            file, target, {name: [sums for m, sums in rows.items() if fits(m)] for name, fits in families}
        )
        parts += [
            f"### {_NAMES[temperature].capitalize()}",
            f"![accuracy kept against share skipped](benchmarks/{file.name})",
            tables.calls(rows, target),
        ]
    return parts


def _links(results: Results, folder: Path) -> list[str]:
    parts: list[str] = []
    speeds = {}
    for link in LINKS:
        rows = results.of("links", link.name, SAMPLED)
        if rows:
            speeds[link.name] = {name: sums.tokens_per_s for name, sums in rows.items()}
            parts += [f"### {tables.link_name(link)}", tables.over_link(rows)]
    if not speeds:
        return []
    plots.write_bars(folder / "throughput.svg", "tokens a second (logarithmic)", speeds)
    return [
        "## Over four links",
        f"At temperature {SAMPLED:g}. Delays are round trips: half of one each way.",
        "![tokens a second by link and method](benchmarks/throughput.svg)",
        *parts,
    ]


def _cost_model(results: Results, setting: Setting) -> list[str]:
    rows = results.of("calls", LOOPBACK.name, SAMPLED)
    if not {methods.TARGET.name, methods.EDGE.name} <= set(rows):
        return []
    return [
        "## On the papers' own ground: their cost model",
        f"""
A token costs the draft model's time and, where it is sent, the bits of its upload over the uplink's rate and the
target model's time. Round trips, the downlink, ids of skipped tokens, catch-up and prompt cost nothing. The times
are those of `edge` and `target` alone on this machine; shares and bytes are those measured on the calls at
temperature {SAMPLED:g}. The papers' uploads are charged at 23 bits an entry; ours at all bytes of its messages, ids of
skipped tokens and audits included. *Gain* is throughput over that of uploading every token in full; it stands once
for this pair's vocabulary and once for the papers' of {PAPER_VOCABULARY:,} tokens.""",
        tables.cost_model_table(rows, setting.num_vocabulary),
    ]


def _how(setting: Setting) -> list[str]:
    size, num_vocabulary = setting.size, setting.num_vocabulary
    fits = "\n".join(f"  - {_NAMES[t]}: {_fit(profile)}" for t, profile in setting.profiles.items())
    return [
        "## How it was measured",
        f"""
- Command: `{setting.command}`. Figures: [paper.csv](benchmarks/paper.csv), sums by method, temperature and link.
- The pair is the demo's. The odd lines of the file give the {setting.num_calls} calls, the even ones the calibration,
  so that nothing is fitted on what is judged. Calibration reads the calls of its dialogues:
{fits}
- Accuracy, skipping and divergence hardly depend on the link: they come from {setting.num_calls} calls without a proxy,
  with a verdict timeout that a busy machine does not reach; over the links it is the default of 2 s.
- Over each link there are at most {size.link_calls} calls of at most {size.link_tokens} tokens, and a method ends with
  the call under way after {size.cell_s:g} s: slow ones have few. Each begins with a board that has only warmed up.
- The divergence of ours is what its audit says; that of the others, and of unverified tokens, was computed aside by
  the target model over one finished answer in {LOSS_EVERY}, and cost them nothing.
- Broker, workers, proxy and board ran on one machine that had other work to do: read wall times as ratios. Delay
  rules on LTE and NB-IoT; on LAN and Wi-Fi it is also Python's speed on a busy processor, the proxy's included.
- A full upload is {upload_bytes(num_vocabulary):,.0f} bytes with this pair's {num_vocabulary:,} tokens of vocabulary,
  and {upload_bytes(PAPER_VOCABULARY):,.0f} with the papers' {PAPER_VOCABULARY:,}: the links were measured in full
  upload's favour, by a factor of {PAPER_VOCABULARY / num_vocabulary:.1f}.""",
    ]


def _fit(profile: Profile) -> str:
    line = profile.linear
    thresholds = " and ".join(
        "none" if threshold is None else f"{threshold:.3f}"
        for threshold in (line.risk_averse, line.risk_prone)
    )
    return (
        f"the papers' line is beta = {line.slope:.3f} u {line.intercept:+.3f}, its thresholds {thresholds} "
        f"(risk-averse, risk-prone); our estimator is `{profile.default_estimator}`; mean beta is "
        f"{profile.mean_beta:.3f} over {profile.held_out:,} positions, {profile.fitted:,} others were fitted on"
    )
