"""The benchmark's settings. In: flags, environment (HUNCH_BENCH_…), TOML. Out: checked values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from benchmarks.paper.links import LINKS
from runtime.settings import FileSettings

DEFAULT_FILE = Path("/etc/hunch/bench.toml")


class PaperSettings(FileSettings):
    """The papers' table on a real broker. Flags override HUNCH_BENCH_… variables, which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_BENCH_")

    corpus: Path = Field(description="dialogues that the models have not seen, .jsonl or .jsonl.xz")
    output: Path | None = Field(
        None, description="folder for page, CSV and plots; none: docs, or build/bench-paper for --quick"
    )
    quick: bool = Field(False, description="few calls and methods: an impression within five minutes")
    parts: tuple[Literal["calls", "links"], ...] = Field(
        ("calls", "links"), description="only what is judged on calls, or only what is timed over links"
    )
    links: tuple[str, ...] = Field(
        (), description="only these of " + ", ".join(link.name for link in LINKS) + "; may be repeated"
    )
    methods: tuple[str, ...] = Field(
        (),
        description="only methods whose names begin so, such as target, u-hlm, 'ours risk'; may be repeated",
    )
    calls: int | None = Field(
        None, ge=1, description="calls that accuracy is judged on; none: 500, quick: 12"
    )
    link_calls: int | None = Field(
        None, ge=1, description="calls over each link, at most; none: 15, quick: 3"
    )
    cell_s: float | None = Field(
        None,
        gt=0,
        description="seconds for a method over a link, then it ends with the call; none: 60, quick: 5",
    )
    positions: int | None = Field(
        None, ge=200, description="tokens to calibrate on, at most; none: 60,000, quick: 2,000"
    )
    work: Path = Field(
        Path("build/bench-paper"),
        description="folder for what calibration measured, to go on from; it holds token ids of the dialogues",
    )
    page_only: bool = Field(False, description="measure nothing: write the page from what there is")
    seed: int = Field(1, ge=0, lt=2**32, description="makes the draws repeatable")

    @field_validator("links")
    @classmethod
    def _links_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [link.name for link in LINKS]
        for name in names:
            if name not in known:
                raise ValueError(f"there is no link {name!r}; choose from {', '.join(known)}")
        return names
