"""What each term of the warm start earns: conditions that differ in it alone, on equal seeds and equal steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudyPointDTO(_Row):
    """A policy on its way, measured on the seeds that select."""

    steps: int = Field(ge=0, description="environment steps so far, those of a warm-up among them")
    return_mean: float = Field(description="mean return, sampled")
    faints_per_10k: float | None = Field(None, ge=0, description="per 10 000 agent-ticks")
    queue_conflict_events: float | None = Field(None, ge=0, description="per 1 000 agent-ticks")


class StudyCellDTO(_Row):
    """One training run of a study."""

    condition: str
    trunk: str = Field(description="separate or shared: the hidden layers of actor and critic")
    seed: int
    clone_sha256: str | None = Field(description="of the clone it began with; null from scratch")
    status: str | None = Field(None, description="verdict of the guardrails, where there are any")
    steps: int = Field(ge=0, description="environment steps of training")
    curve: tuple[StudyPointDTO, ...] = Field(description="return on the way, on the seeds that select")
    final_return: float = Field(description="mean return of the last policy, on held-out seeds")
    final_faints_per_10k: float | None = None
    released_return: float = Field(description="the same of the policy that it releases")
    released_faints_per_10k: float | None = None
    actions: tuple[str, ...] = Field((), description="what guardrails did")
    duration_sec: float = Field(ge=0)


class StudyBudgetDTO(_Row):
    """A condition after some of the steps, on the seeds that select; intervals are paired over training seeds."""

    steps: int
    return_mean: float
    return_low: float = Field(description="lower end of the 95 % interval over training seeds")
    return_high: float
    above_bc: float | None = None
    above_bc_low: float | None = None
    above_bc_high: float | None = None
    above_scratch: float | None = None
    above_scratch_low: float | None = None
    above_scratch_high: float | None = None


class StudyRowDTO(_Row):
    """A condition with one kind of trunk over all training seeds; held-out returns at the end."""

    condition: str
    trunk: str
    runs: int
    deepest_fall: float | None = Field(
        None, description="below the clone on the scale from random to the expert, percent; mean over seeds"
    )
    deepest_fall_worst: float | None = Field(None, description="of the worst seed")
    final_return: float
    released_return: float
    above_bc: float | None = Field(None, description="final return less the clone's")
    above_bc_low: float | None = None
    above_bc_high: float | None = None
    above_scratch: float | None = Field(None, description="final return less that of PPO from scratch")
    above_scratch_low: float | None = None
    above_scratch_high: float | None = None
    released_above_bc_low: float | None = Field(None, description="of the released policy's return")
    released_above_scratch_low: float | None = None
    faints_per_10k: float | None = Field(None, description="of the last policies, held-out")
    released_faints_per_10k: float | None = None
    budgets: tuple[StudyBudgetDTO, ...] = Field((), description="on the way")


class StudyDTO(ResultDTO):
    """Conditions beside each other."""

    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cells": ("condition", "trunk", "seed", "steps", "final_return", "released_return", "status"),
        "rows": (
            *("condition", "trunk", "runs", "deepest_fall", "deepest_fall_worst", "final_return"),
            *("above_bc", "above_bc_low", "above_bc_high"),
            *("above_scratch", "above_scratch_low", "above_scratch_high", "faints_per_10k"),
            *("released_return", "released_above_bc_low", "released_above_scratch_low"),
            "released_faints_per_10k",
        ),
    }

    env: str = Field(description="environment id")
    timesteps: int = Field(
        gt=0,
        description="environment steps of every run, up to a tick of each stage; fewer where a warm-up ends early",
    )
    seeds: tuple[int, ...] = Field(description="training seeds")
    random_return: float = Field(description="0 of the scale of falls, on the seeds that select")
    expert_return: float = Field(description="100 of it")
    episodes: int = Field(gt=0, description="held-out episodes of every policy at the end")
    stage_episodes: int = Field(gt=0, description="episodes of every policy on the way")
    output: str
    figure: str | None = None
    cells: tuple[StudyCellDTO, ...]
    rows: tuple[StudyRowDTO, ...]
