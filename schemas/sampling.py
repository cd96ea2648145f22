"""Sampling parameters, the same on both ends. In: what a user sets. Out: a checked, frozen value.

They turn logits into `q` and `p` in this order: temperature, top-k, top-p, min-p (each on what the one
before left, renormalised at the end). Temperature 0 is greedy.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Logits divided by less than this overflow float32, and mean greedy anyway.
_LEAST_TEMPERATURE = 1e-3


def _zero_or_not_tiny(temperature: float) -> float:
    if 0 < temperature < _LEAST_TEMPERATURE:
        raise ValueError(f"give 0 for greedy, or at least {_LEAST_TEMPERATURE}")
    return temperature


_NOT_TINY = {
    "not": {"exclusiveMinimum": 0, "exclusiveMaximum": _LEAST_TEMPERATURE}
}  # the same as JSON Schema
Temperature = Annotated[
    float, Field(ge=0, le=10, json_schema_extra=_NOT_TINY), AfterValidator(_zero_or_not_tiny)
]


class SamplingParameters(BaseModel):
    """How a next-token distribution is made from logits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Temperature = Field(0.7, description="divides the logits; 0 takes the likeliest token")
    top_k: int | None = Field(None, ge=1, le=2**20, description="keep the k likeliest tokens; none: all")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the likeliest tokens up to this mass; 1: all")
    min_p: float = Field(
        0.0, ge=0, le=1, description="drop tokens below this share of the likeliest; 0: none"
    )

    @property
    def greedy(self) -> bool:
        """Whether the distribution is the likeliest token alone."""
        return self.temperature == 0
