"""The stages of the recipe, in order. Nothing else decides what is trained, on what, and for how long."""

from __future__ import annotations

from dataclasses import replace

from deploy.demo.training.guides import GuidePlan
from deploy.demo.training.mixture import Mixture
from deploy.demo.training.model import Shape
from deploy.demo.training.optimiser import Rates
from deploy.demo.training.train import BATCH_TOKENS, SHARDS, Stage

DRAFT = Shape(num_layers=2)
TARGET = Shape(num_layers=6)
# Larger than the customary 10,000: more of a head's 64 dimensions turn so slowly that they can still match a
# token some hundred positions back. Weights trained with the smaller base take about a million tokens to adapt.
FAR_SIGHTED_TARGET = replace(TARGET, rope_base=100_000.0)

STAGES = (
    Stage("draft-base", DRAFT, num_tokens=4_600_000, rates=Rates(muon=0.02, adam=3e-3)),
    Stage(
        "target-base", TARGET, num_tokens=3_900_000, starts_from="draft-base", rates=Rates(0.02, 2e-3), seed=5
    ),
    Stage(
        "target-plain",
        TARGET,
        num_tokens=3_550_000,
        starts_from="target-base",
        flat_share=0.25,
        last_scale=0.97,
        seed=11,
    ),
    Stage(
        "target-copying",
        FAR_SIGHTED_TARGET,
        num_tokens=5_600_000,
        starts_from="target-plain",
        flat_share=0.44,
        last_scale=0.65,
        early_mixture=Mixture(corpus=0.3, swapped=0.4, drills=0.3),
        early_share=0.53,
        mixture=Mixture(corpus=0.5, swapped=0.42, drills=0.08),
        guide=GuidePlan(before_layer=1, induction_layer=3, strength=0.5, share=0.73),
        seed=14,
    ),
    Stage(
        "target",
        FAR_SIGHTED_TARGET,
        num_tokens=6_800_000,
        starts_from="target-copying",
        rates=Rates(muon=0.0082, adam=1.02e-3),
        flat_share=0.0,
        mixture=Mixture(corpus=0.75, swapped=0.24, drills=0.01),
        seed=15,
    ),
    Stage(
        "draft",
        DRAFT,
        num_tokens=1_200_000,
        starts_from="draft-base",
        rates=Rates(muon=0.008, adam=1e-3),
        flat_share=0.0,
        seed=13,
    ),
)


def smoke_stages() -> tuple[Stage, ...]:
    """The same stages with three steps each: shows that everything runs, not that anything is learned."""
    return tuple(replace(stage, num_tokens=3 * SHARDS * BATCH_TOKENS) for stage in STAGES)
