"""What an anneal went through, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import TrainingResultDTO
from townlet_train.results.evaluation import EvaluationDTO
from townlet_train.results.gate import GateDTO

AnnealStatus = Literal["PASS", "HOLD", "FAIL"]


class AnnealStageResultDTO(BaseModel):
    """One stage: what it reached, what it was measured at on held-out seeds, and what that led to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cycle: int = Field(ge=0)
    mode: str = Field(description="bc, dagger, critic_warmup, ppo, eval, or the name of a strategy")
    steps: int = Field(ge=0, description="environment steps of the stage")
    total_steps: int = Field(ge=0, description="and of all stages so far")
    social_stage: str | None = Field(None, description="social rewards that were paid; null outside the town")
    checkpoint: str | None = Field(None, description="what it left, below the run's directory")
    accuracy: float | None = Field(None, ge=0, le=1, description="held-out accuracy of a stage that imitates")
    threshold: float | None = Field(None, ge=0, le=1, description="what it had to reach")
    passed: bool | None = Field(None, description="whether it did; null where there is no threshold")
    anneal_ratio: float | None = Field(
        None, ge=0, le=1, description="share of agent-ticks driven by the expert"
    )
    bc_weight: float | None = Field(None, ge=0, le=1, description="weight of imitating it there")
    loss: float | None = Field(None, description="loss of a clone, nats")
    loss_total: float | None = None
    loss_policy: float | None = None
    loss_value: float | None = None
    kl_coef: float | None = Field(None, ge=0, description="weight of the distance to the clone, at its start")
    learning_rate: float | None = Field(None, ge=0)
    reference_kl: float | None = Field(None, description="distance to the clone at its end, nats")
    explained_variance: float | None = Field(None, description="of the returns by the critic, at its end")
    return_mean: float | None = Field(None, description="mean return on held-out seeds")
    return_low: float | None = Field(None, description="lower end of its 95 % interval")
    return_high: float | None = None
    faints_per_10k: float | None = Field(None, ge=0, description="per 10 000 agent-ticks, held-out")
    queue_conflict_events: float | None = Field(None, ge=0, description="per 1 000 agent-ticks, held-out")
    queue_conflict_intensity_sum: float | None = Field(
        None, ge=0, description="per 1 000 agent-ticks, held-out"
    )
    anneal_loss_flag: bool | None = Field(None, description="whether the loss rose more than tolerated")
    anneal_queue_flag: bool | None = Field(None, description="whether conflicts left their band")
    anneal_intensity_flag: bool | None = Field(None, description="whether their intensity did")
    flags: tuple[str, ...] = Field((), description="guardrails it went through, in sentences")
    action: Literal["soften", "restore", "hold", "fail"] | None = Field(
        None,
        description="what was done about them: soften (more KL, smaller steps), restore (the best), hold, fail",
    )
    rolled_back: bool | None = Field(None, description="whether its policy was given up")
    best: bool = Field(False, description="whether it left the best policy so far")


class AnnealSummaryDTO(TrainingResultDTO):
    """From a clone to the best policy that kept within the guardrails."""

    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "stages": (
            *("cycle", "mode", "total_steps", "return_mean", "return_low", "return_high", "faints_per_10k"),
            *("queue_conflict_events", "reference_kl", "kl_coef", "learning_rate", "best", "action"),
        )
    }

    strategy: str = "anneal"
    status: AnnealStatus
    reasons: tuple[str, ...] = Field((), description="why, in sentences")
    stages: tuple[AnnealStageResultDTO, ...]
    dataset_label: str
    baselines: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="what stages are compared with, by dataset label"
    )
    steps: int = Field(ge=0, description="environment steps of all stages")
    demonstrations: str | None = Field(
        description="manifest of what was cloned; null where a clone was given"
    )
    bc_checkpoint: str | None = Field(None, description="the clone")
    evaluation: EvaluationDTO | None = Field(
        None, description="of the best policy, on held-out seeds that selected nothing"
    )
    reward_threshold: float | None = Field(None, description="mean return at which the environment is solved")
    converged: bool | None = Field(
        None, description="lower 95 % bound of that mean is at least the threshold; null without one"
    )
    final_reward_mean: float | None = Field(None, description="mean return of the best policy, held-out")
    final_reward_std: float | None = Field(None, ge=0, description="deviation of those returns")
    total_episodes: int | None = Field(None, description="of them")
    gate: GateDTO | None = Field(None, description="the gate's verdict on the best policy; null: not judged")
    promotion_pass_streak: int | None = Field(
        None, ge=0, description="passes in a row; null without promotion"
    )
    promotion_candidate_ready: bool | None = Field(None, description="whether it may be promoted")
