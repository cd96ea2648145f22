"""A worker's settings. In: flags, environment (HUNCH_WORKER_…), TOML. Out: checked values."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.checkup.settings import CheckupSettings
from runtime.settings import HunchSettings

DEFAULT_FILE = Path("/etc/hunch/worker.toml")


class WorkerSettings(HunchSettings):
    """Flags override environment variables (HUNCH_WORKER_MODEL, …), which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_WORKER_")

    n_ctx: int | None = Field(
        None, ge=8, description="tokens that a session may hold; none: what the model was made for"
    )
    max_sessions: int = Field(16, ge=1, le=256, description="sessions kept; the longest idle one is evicted")
    max_batch_tokens: int = Field(512, ge=1, description="tokens evaluated in one pass, over all sessions")
    profile: Path | None = Field(
        None, description="calibrated profile to publish, retained, for agents of the pair; none: none"
    )
    beat_s: float = Field(5.0, gt=0, le=3600, description="seconds between two status messages")
    metrics_address: str | None = Field(
        "127.0.0.1:9465", description="address and port where Prometheus reads metrics; off: nowhere"
    )


class DoctorSettings(CheckupSettings, WorkerSettings):
    """Check all that a worker needs. Flags override HUNCH_WORKER_… variables, which override the TOML file."""

    model_config = SettingsConfigDict(env_prefix="HUNCH_WORKER_", cli_shortcuts={"as-json": "json"})


class RunSettings(WorkerSettings):
    """Judge drafts. Flags override HUNCH_WORKER_… variables, which override the TOML file."""

    check: bool = Field(False, description="say whether these settings work, without connecting, and end")
