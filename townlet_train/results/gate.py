"""What a gate decided, and how training methods compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO

Verdict = Literal["PASS", "HOLD", "FAIL"]


class GateCriterionDTO(BaseModel):
    """One thing a gate asked of a candidate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: str = Field(description="mean, iqm, cvar, threshold, or the event of a guardrail")
    status: Verdict
    candidate: float = Field(description="the candidate's value")
    release: float | None = Field(None, description="the release's; null where it is not compared")
    difference: float = Field(description="what is judged: candidate less release, or the candidate's value")
    low: float | None = Field(
        description="lower one-sided bound of the difference; null: nothing below it is bad"
    )
    high: float | None = Field(description="upper one-sided bound; null: nothing above it is bad")
    at_least: float | None = Field(None, description="the difference must be shown to be at least this")
    at_most: float | None = Field(None, description="the difference must be shown to be at most this")
    episodes_needed: int | None = Field(
        None, ge=1, description="about how many more would decide; null: decided, or no number would"
    )


class GateCandidateDTO(BaseModel):
    """One of several candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str
    verdict: Verdict
    superior: bool
    mean: float | None = Field(None, description="mean return; null if it was not evaluated")
    p_value: float | None = Field(None, ge=0, le=1)
    level: float | None = Field(None, description="level it was held to")
    reason: str = Field(description="the first of its reasons")


class GateDTO(ResultDTO):
    """What a gate decided about a candidate, and why; of several, about the best of them."""

    verdict: Verdict
    non_inferior: bool | None = Field(
        None,
        description="mean, iqm and tail are shown to be no worse than the margins; null without a release",
    )
    superior: bool = Field(False, description="PASS, and the mean is shown to be better")
    candidate: str = Field(description="checkpoint or file")
    candidate_sha256: str | None = Field(None, description="sha256 of its bytes")
    release: str | None = Field(None, description="checkpoint, file or scripted policy it is compared with")
    release_sha256: str | None = Field(None, description="sha256 of its bytes")
    env: str | None = Field(None, description="environment id")
    method: Literal["fixed", "sequential"] = "fixed"
    block: str | None = Field(None, description="version and number of the block of seeds; null: other seeds")
    episodes: int = Field(0, ge=0, description="paired episodes judged")
    alpha: float = Field(description="chance of a false claim among all candidates")
    level: float | None = Field(None, description="level of this candidate's bounds, after Holm")
    p_value: float | None = Field(
        None, ge=0, le=1, description="smallest level at which it passes; null: sequential, or not evaluated"
    )
    p_superior: float | None = Field(
        None, ge=0, le=1, description="smallest level at which its mean is better"
    )
    share_better: float | None = Field(
        None, ge=0, le=1, description="seeds on which it earns more, ties by half"
    )
    e_non_inferior: float | None = Field(
        None, ge=0, description="evidence that it is better than the release less the margin on most seeds"
    )
    e_superior: float | None = Field(None, ge=0, description="evidence that it is better on most seeds")
    e_inferior: float | None = Field(
        None, ge=0, description="evidence that it is worse than the release less the margin on most seeds"
    )
    criteria: tuple[GateCriterionDTO, ...] = Field((), description="everything that was asked")
    reasons: tuple[str, ...] = Field(description="sentences that say why")
    episodes_needed: int | None = Field(
        None, ge=1, description="about how many more episodes would decide; null: decided, or no number would"
    )
    candidates: tuple[GateCandidateDTO, ...] = Field((), description="all of them, where there are several")
    seeds: tuple[int, ...] = Field((), description="one per episode")
    candidate_returns: tuple[float, ...] = Field((), description="return of each episode")
    release_returns: tuple[float, ...] = Field((), description="return of each episode on the same seed")


class MethodDTO(BaseModel):
    """One method's training runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    env: str
    runs: int = Field(description="training runs, one seed each")
    seeds: tuple[int, ...]
    mean: float = Field(description="of the runs' values")
    iqm: float = Field(description="interquartile mean over runs")
    low: float = Field(description="lower end of the bootstrap interval of iqm, over runs")
    high: float = Field(description="upper end")
    values: tuple[float, ...] = Field(description="one per run")


class MethodPairDTO(BaseModel):
    """Two methods beside each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    env: str
    difference: float = Field(description="iqm of the first less that of the second")
    difference_low: float = Field(description="lower end of its stratified bootstrap interval")
    difference_high: float = Field(description="upper end")
    improvement: float = Field(description="probability that a run of the first beats one of the second")
    improvement_low: float = Field(description="lower end of its stratified bootstrap interval")
    improvement_high: float = Field(description="upper end")


class CompareDTO(ResultDTO):
    """How training methods compare; the unit is the training run."""

    headings: ClassVar[Mapping[str, str]] = {
        "improvement": "chance_first_wins",
        "improvement_low": "chance_low",
        "improvement_high": "chance_high",
    }

    metric: str = Field(description="what a run's value is")
    by: str = Field(description="what runs are grouped by")
    confidence: float
    methods: tuple[MethodDTO, ...]
    pairs: tuple[MethodPairDTO, ...] = ()
    answer: tuple[str, ...] = Field((), description="sentences that say which is better, where it is shown")
