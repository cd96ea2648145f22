"""An agent's settings. In: flags, environment (HUNCH_AGENT_…), TOML. Out: checked values."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from edge_agent.truncation import ENTRY_BYTES
from edge_agent.uncertainty import ESTIMATOR_NAMES, LEARNED
from runtime.checkup.settings import CheckupSettings
from runtime.settings import HunchSettings
from schemas.distribution import MAX_K
from schemas.messages import MAX_ANSWER_TOKENS
from schemas.profile import KRule, KRuleName, Profile
from schemas.sampling import SamplingParameters, Temperature

DEFAULT_FILE = Path("/etc/hunch/agent.toml")
DEFAULT_STATE_DIR = Path("/var/lib/hunch/agent")


class Mode(Enum):
    """What is verified: tokens in doubt, every token, nothing."""

    OPPORTUNISTIC = "opportunistic"
    EXACT = "exact"
    EDGE = "edge"


class AgentSettings(HunchSettings):
    """Flags override environment variables (HUNCH_AGENT_MODEL, …), which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_AGENT_")

    mode: Mode = Field(
        Mode.OPPORTUNISTIC, description="opportunistic: ask where in doubt; exact: ask always; edge: never"
    )
    risk: float = Field(
        0.02,
        ge=0,
        le=1,
        description="divergence from the target model that is allowed, a token; 0 verifies all",
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="ask above this uncertainty, instead of holding a risk; below 0: always",
    )
    start_threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="where the threshold that is moved to hold the risk starts, unless one is remembered; "
        "none: as the profile says",
    )
    state_dir: Path | None = Field(
        None,
        description="folder where the threshold is remembered over restarts; none: `run` takes "
        f"{DEFAULT_STATE_DIR} where that is there, other commands remember nothing",
    )
    uncertainty: str | None = Field(
        None,
        description="estimator: " + ", ".join((*ESTIMATOR_NAMES, LEARNED)) + "; none: the profile's best",
    )
    profile: Path | None = Field(
        None, description="calibrated profile of the pair; none: the one on the broker"
    )
    k: int = Field(16, ge=1, le=MAX_K, description="tokens of a distribution that are sent, at most")
    k_rule: KRuleName = Field(
        "cost",
        description="which tokens are sent: those worth their bytes, always k, all but max-left-out, or the "
        "profile's one k that leaves out that on average. With none of these four settings, the profile's rule",
    )
    rejection_bytes: float = Field(
        125.0, gt=0, description="what a rejection costs, its wait included, in bytes; for the rule cost"
    )
    max_left_out: float = Field(
        0.02, ge=0, lt=1, description="probability that may be left out; for the cu-hlm rules"
    )
    n_ctx: int | None = Field(
        None, ge=8, description="tokens of prompt and answer; none: what the model was made for"
    )
    temperature: Temperature = Field(0.7, description="divides the logits; 0 takes the likeliest token")
    top_k: int | None = Field(None, ge=1, description="draw among the k likeliest tokens; none: all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="draw among the likeliest tokens up to this mass; 1: all"
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="drop tokens below this share of the likeliest; 0: none"
    )
    seed: int | None = Field(
        None, ge=0, lt=2**64, description="makes answers repeatable; none: a new one each time"
    )
    max_tokens: int = Field(256, ge=1, le=MAX_ANSWER_TOKENS, description="tokens an answer may have")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), max_length=16, description="strings that end an answer; not shown"
    )
    verdict_timeout_s: float = Field(
        2.0, gt=0, le=600, description="wait this long for a verdict, then go on"
    )
    connect_timeout_s: float = Field(
        3.0, ge=0, le=600, description="wait this long for broker and worker at the start"
    )

    @field_validator("uncertainty")
    @classmethod
    def _estimator_exists(cls, name: str | None) -> str | None:
        known = (*ESTIMATOR_NAMES, LEARNED)
        if name is not None and name not in known:
            raise ValueError(f"there is no estimator {name!r}; choose from {', '.join(known)}")
        return name

    @property
    def sets_rule(self) -> bool:
        """Whether the rule for `k` was chosen here, whatever a profile says."""
        return bool(self.model_fields_set & {"k", "k_rule", "rejection_bytes", "max_left_out"})

    def rule(self, profile: Profile | None = None) -> KRule:
        """How distributions are cut to what is sent: as was set, else as the profile says, else by default."""
        if profile is not None and profile.k_rule is not None and not self.sets_rule:
            return profile.k_rule
        found = profile.offline_k() if profile is not None and self.k_rule == "cu-hlm-offline" else None
        return KRule(
            name=self.k_rule,
            k=self.k if found is None or "k" in self.model_fields_set else found,
            least_share=min(1.0, ENTRY_BYTES / self.rejection_bytes) if self.k_rule == "cost" else 0.0,
            max_left_out=self.max_left_out if self.k_rule.startswith("cu-hlm") else 0.0,
        )

    @property
    def sampling(self) -> SamplingParameters:
        """The sampling parameters of answers that bring none of their own."""
        return SamplingParameters(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p
        )


class RunSettings(AgentSettings):
    """Wait for prompts on MQTT. Flags override HUNCH_AGENT_… variables, which override the TOML file."""

    check: bool = Field(False, description="say whether these settings work, without connecting, and end")


class GenerateSettings(AgentSettings):
    """Answer one prompt and end. Flags override HUNCH_AGENT_… variables, which override the TOML file."""

    prompt: CliPositionalArg[str] = Field(description="what to answer; - reads it from standard input")
    raw: bool = Field(False, description="continue the prompt itself instead of answering it as a chat")
    color: bool | None = Field(None, description="show origins by colour; none: on a terminal, else by marks")
    stats: bool = Field(True, description="end with a line of figures on standard error")


class CalibrateSettings(AgentSettings):
    """Measure a pair on a text, write its profile. Flags override HUNCH_AGENT_…, which override the TOML file."""

    text: tuple[Path, ...] = Field(
        min_length=1, description="text of your own kind: plain, or .jsonl of conversations; may be repeated"
    )
    output: Path = Field(Path("profile.json"), description="where the profile goes; samples are kept beside")
    verdict_timeout_s: float = Field(
        60.0, gt=0, le=600, description="wait this long for a stretch of up to 97 audits, then give up"
    )
    positions: int = Field(60_000, ge=200, description="tokens of the text to calibrate on, at most")


class DoctorSettings(CheckupSettings, AgentSettings):
    """Check all that an agent needs. Flags override HUNCH_AGENT_… variables, which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_AGENT_", cli_shortcuts={"as-json": "json"})
