"""The profile of a pair of models. In: what calibration measured, or JSON from outside. Out: a checked value.

A profile says how well this draft model's uncertainty predicts rejection by this target model, and where to
start. It travels retained on `profiles/{id}`; the id follows from the pair, so that an agent finds it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from schemas.codebook import MAX_RANKED_IDS, Codebook
from schemas.distribution import MAX_K
from schemas.errors import BadCompression
from schemas.frames import MAX_TOKEN_ID
from schemas.messages import Count, Message, Share, VocabularyMark
from schemas.sampling import SamplingParameters

PROFILE_VERSION = 1
MAX_DICTIONARY_BYTES = 1 << 14
# Five full tables and a dictionary fit a JSON message; keys that explain the least are left out.
MAX_TABLE_ENTRIES = 2560

KRuleName = Literal["cost", "fixed", "cu-hlm-online", "cu-hlm-offline"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Key = Annotated[int, Field(ge=0, lt=2**32)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Thousandths = Annotated[int, Field(ge=-1000, le=1000)]


class Pair(Message):
    """Which two models: their names, the draft model's file by content, both vocabularies."""

    draft: str = Field(description="the draft model's name")
    draft_digest: Digest = Field(description="the draft model's file by content")
    draft_vocabulary: VocabularyMark = Field(description="of all of the draft model's tokens")
    target: str = Field(description="the target model's name")
    target_vocabulary: VocabularyMark = Field(description="of all of the target model's tokens")

    @property
    def id(self) -> str:
        """The profile's id: a hash over all but the draft model's name, which its content makes needless."""
        parts = (
            self.draft_digest,
            self.target,
            f"{self.draft_vocabulary.num_tokens}:{self.draft_vocabulary.digest}",
            f"{self.target_vocabulary.num_tokens}:{self.target_vocabulary.digest}",
        )
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


class StartingThreshold(Message):
    """The threshold that costs `risk` on the held-out part, and the share of tokens that it skips."""

    risk: Share = Field(description="divergence a token, audited")
    threshold: float = Field(ge=-1, le=1, description="uncertainty above which a token is asked about")
    skipped: Share = Field(description="share of tokens that are not asked about")


class EstimatorReport(Message):
    """How well an estimator predicts rejection on the held-out part."""

    name: str = Field(description="the estimator, as `--uncertainty` takes it")
    auroc: Share = Field(description="how well it ranks rejections: 0.5 is chance, 1 perfect")
    correlation: float = Field(ge=-1.000001, le=1.000001, description="of `u` and `beta`")
    thresholds: tuple[StartingThreshold, ...] = Field(
        min_length=1, max_length=64, description="where to start, by risk"
    )


class LinearFit(Message):
    """The paper's line `beta = slope * u + intercept` over its sampled estimator, and its two thresholds.

    None: the line is flat or falls, so that no threshold follows from it.
    """

    slope: float = Field(description="the paper's a")
    intercept: float = Field(description="the paper's b")
    risk_averse: float | None = Field(
        None, description="threshold below which the line promises no rejection"
    )
    risk_prone: float | None = Field(None, description="the paper's higher threshold")


class ResidualTable(Message):
    """What a token's identity adds: keys, ascending, and the mean of `beta` less its estimate, in thousandths.

    The key of several tokens is the CRC-32 of their ids in the order of the text, 4 bytes each, little-endian.
    """

    keys: tuple[Key, ...] = Field(max_length=MAX_TABLE_ENTRIES, description="ids, or the CRC-32 of several")
    thousandths: tuple[Thousandths, ...] = Field(max_length=MAX_TABLE_ENTRIES, description="one for each key")

    @model_validator(mode="after")
    def _columns_match(self) -> ResidualTable:
        if len(self.keys) != len(self.thousandths):
            raise ValueError("keys and residuals differ in number")
        return self


class LearnedModel(Message):
    """A logistic model of `beta`: `features` by name, each less its mean and over its scale, times its weight."""

    features: tuple[str, ...] = Field(max_length=64, description="their names")
    means: tuple[float, ...] = Field(description="one for each feature")
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="one for each feature")
    weights: tuple[float, ...] = Field(description="one for each feature")
    intercept: float = Field(description="added to the weighted sum")
    draft_token: ResidualTable = Field(description="by the draft token")
    previous_token: ResidualTable = Field(description="by the token before it")
    pair: ResidualTable = Field(description="by the one before it and the draft token")
    alternative: ResidualTable = Field(description="by the draft token and its likeliest alternative")
    triple: ResidualTable = Field(description="by the two before it and the draft token")

    @model_validator(mode="after")
    def _columns_match(self) -> LearnedModel:
        if not len(self.features) == len(self.means) == len(self.scales) == len(self.weights):
            raise ValueError("features, means, scales and weights differ in number")
        return self


class KRule(Message):
    """How many tokens of a distribution are sent: a rule by name, at most `k`, and what else it needs."""

    name: KRuleName = Field(description="which rule")
    k: int = Field(ge=1, le=MAX_K, description="tokens that are sent, at most")
    least_share: Share = Field(0.0, description="share of the probability worth sending; for the rule cost")
    max_left_out: Share = Field(0.0, description="probability that may be left out; for the cu-hlm rules")


class KRuleReport(Message):
    """What a rule came to on the held-out part."""

    rule: KRule = Field(description="which one")
    skipped: Share = Field(description="tokens kept without asking; what follows is of the others")
    mean_k: float = Field(ge=1, description="tokens that were sent, on average")
    frame_bytes: float = Field(ge=0, description="mean size of a whole frame, its run included")
    rejected: Share = Field(description="mean rejection probability")
    cost: float = Field(
        ge=0, description="bytes a token: frame_bytes, and rejection_bytes for what is rejected"
    )


class Profile(Message):
    """`profiles/{id}`: all that calibration found out about a pair."""

    version: Literal[1] = Field(1, description="of this form")
    pair: Pair = Field(description="which two models")
    sampling: SamplingParameters = Field(description="what was calibrated with")
    k: int = Field(ge=1, le=MAX_K, description="tokens of a distribution that were sent, at most")
    fitted: Count = Field(description="positions that the fits saw")
    held_out: Count = Field(description="positions that the figures are from")
    mean_beta: Share = Field(description="what skipping everything would cost")
    estimators: tuple[EstimatorReport, ...] = Field(min_length=1, max_length=32, description="all measured")
    default_estimator: str = Field(description="the one that predicts rejection best")
    linear: LinearFit = Field(description="the paper's own")
    learned: LearnedModel = Field(description="the learned estimator")
    k_rule: KRule | None = Field(None, description="the rule of the least cost; agents follow it")
    k_rules: tuple[KRuleReport, ...] = Field(
        (), max_length=64, description="what it and others came to, those of CU-HLM among them"
    )
    rejection_bytes: float = Field(125.0, gt=0, description="what a rejection was taken to cost, in bytes")
    dictionary: str | None = Field(
        None, description="zstd dictionary of the codebook, base64; none: no codebook"
    )
    ranked_ids: tuple[TokenId, ...] = Field(
        (), max_length=MAX_RANKED_IDS, description="the most frequent token ids, for the codebook"
    )

    @field_validator("dictionary")
    @classmethod
    def _dictionary_works(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                content = base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise ValueError("not base64") from error
            if len(content) > MAX_DICTIONARY_BYTES:
                raise ValueError(f"{len(content)} bytes, at most {MAX_DICTIONARY_BYTES}")
            try:
                Codebook(content)
            except BadCompression as error:
                raise ValueError(str(error)) from error
        return text

    @field_validator("ranked_ids")
    @classmethod
    def _ranks_differ(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(ids)) != len(ids):
            raise ValueError("an id has two ranks")
        return ids

    @model_validator(mode="after")
    def _default_is_reported(self) -> Profile:
        if self.default_estimator not in {report.name for report in self.estimators}:
            raise ValueError(f"the default estimator {self.default_estimator!r} is not reported on")
        return self

    @property
    def id(self) -> str:
        """The last level of the profile's topic."""
        return self.pair.id

    def offline_k(self) -> int | None:
        """The one `k` that CU-HLM's offline rule finds; None where it was not looked for."""
        found = (report.rule.k for report in self.k_rules if report.rule.name == "cu-hlm-offline")
        return next(found, None)

    def codebook(self) -> Codebook | None:
        """How the pair's sessions write their bodies; None where calibration found no gain in it."""
        return (
            None if self.dictionary is None else Codebook(base64.b64decode(self.dictionary), self.ranked_ids)
        )

    def start_for(self, estimator: str, risk: float) -> float | None:
        """The threshold to start from: that of the largest calibrated risk that is not above the given one.

        None where the estimator was not calibrated or `risk` lies under all calibrated ones.
        """
        for report in self.estimators:
            if report.name == estimator:
                fitting = [start for start in report.thresholds if start.risk <= risk]
                return max(fitting, key=lambda start: start.risk).threshold if fitting else None
        return None

    def misfit(self, actual: Pair) -> str | None:
        """Why this profile is not for that pair, in one line; None where it is."""
        mine = self.pair
        if mine.draft_digest != actual.draft_digest:
            return (
                f"the profile is for the draft model {mine.draft} (content {mine.draft_digest[:12]}), not for "
                f"{actual.draft} ({actual.draft_digest[:12]}); calibrate this pair"
            )
        if mine.id != actual.id:
            return (
                f"the profile is for the target model {mine.target} "
                f"({mine.target_vocabulary.num_tokens} tokens), the worker runs {actual.target} "
                f"({actual.target_vocabulary.num_tokens} tokens); calibrate this pair"
            )
        return None
