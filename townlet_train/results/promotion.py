"""Where promotion stands, what happened, and whether its records can be trusted."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO

PromotionStatus = Literal["PASS", "HOLD", "FAIL"]


class CandidateDTO(BaseModel):
    """A checkpoint that may be released, or was."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    checkpoint: str = Field(description="path under which it was evaluated")
    sha256: str = Field(description="of the bytes that were evaluated, hex")
    scorecard: dict[str, float | None] = Field(default_factory=dict, description="what was measured of it")


class PromotionSnapshot(BaseModel):
    """What the ledger comes to, under the names of Townlet's snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["monitoring", "ready", "promoted"] = Field(
        "monitoring", description="ready: the candidate may be promoted"
    )
    pass_streak: int = Field(0, ge=0, description="PASSes of the candidate in a row, on disjoint seeds")
    required_passes: int = Field(2, ge=1, description="PASSes that make a candidate ready")
    candidate_ready: bool = False
    candidate_ready_tick: int | None = Field(None, description="evaluation that made it ready")
    last_result: Literal["pass", "hold", "fail"] | None = Field(
        None, description="verdict of the last evaluation"
    )
    last_evaluated_tick: int | None = Field(None, description="number of the last evaluation, from 1")
    current_release: CandidateDTO | None = None
    initial_release: CandidateDTO | None = Field(None, description="the first that was ever released")
    candidate: CandidateDTO | None = Field(None, description="whose streak it is")


class PromotionStatusDTO(PromotionSnapshot, ResultDTO):
    """Where promotion stands."""

    directory: str
    release_file: str | None = Field(None, description="file that holds the current release")
    ledger_lines: int = Field(0, ge=0)
    ledger_sha256: str = Field("", description="sha256 of the ledger's last line")
    next_step: str = Field("", description="what to do next")


class PromotionEventDTO(BaseModel):
    """One line of the ledger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    at: str = Field(description="UTC, ISO 8601")
    event: str
    verdict: str | None = None
    checkpoint: str | None = Field(None, description="what was evaluated, or is released from here on")
    sha256: str | None = None
    seeds: tuple[tuple[int, int], ...] = Field((), description="evaluated on, (first, last) each")
    pass_streak: int
    state: str
    remark: str | None = Field(None, description="the reason that was given, or why a PASS does not count")


class PromotionHistoryDTO(ResultDTO):
    """Everything that happened, oldest first."""

    directory: str
    events: tuple[PromotionEventDTO, ...]


class PromotionProblem(BaseModel):
    """Something that is not as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    line: int | None = Field(None, description="of the ledger, from 1")
    problem: str


class PromotionVerifyDTO(ResultDTO):
    """Whether ledger, state and releases are what was written."""

    directory: str
    valid: bool
    ledger_lines: int
    ledger_sha256: str
    releases: int = Field(description="released files whose bytes were compared")
    problems: tuple[PromotionProblem, ...] = ()
    finished: tuple[str, ...] = Field((), description="what a killed command had left to do, done now")
