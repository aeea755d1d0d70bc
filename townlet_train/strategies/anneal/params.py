"""What an anneal can be told; what is left unset is what suits the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from townlet_train.api import StrategyParams

ANNEAL, BC, DAGGER, CRITIC_WARMUP, PPO, EVAL = "anneal", "bc", "dagger", "critic_warmup", "ppo", "eval"


class StageParams(BaseModel):
    """One stage of a schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cycle: int = Field(ge=0, description="which cycle it belongs to; stages run in the order of their cycles")
    mode: str = Field(
        min_length=1, description="bc, dagger, critic_warmup, ppo, eval, or the name of a strategy"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="of its strategy, over what anneal says")


class Guardrails(BaseModel):
    """Where a stage has gone too far, measured on held-out seeds; events are held to `gate.guardrails`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    return_tolerance: float = Field(
        0.05, ge=0, description="share of the way from random to the reference that the return may fall"
    )
    loss_tolerance: float = Field(
        1.0, ge=0, description="how far the loss may rise, in units of its baseline, at least of 1"
    )
    act: bool = Field(True, description="soften, restore and hold; else what was gone through is only told")


class AnnealParams(StrategyParams):
    """What an anneal can be told."""

    may_change_on_resume: ClassVar[frozenset[str] | None] = frozenset()
    say_env: ClassVar[tuple[str, ...]] = ("clone", "bc_manifest", "replay_manifest", "capture_dir")

    bc_manifest: Path | None = Field(None, description="demonstrations; unset: the expert's are captured")
    clone: Path | None = Field(None, description="a policy to begin with instead of cloning")
    replay_manifest: Path | None = Field(None, description="recorded transitions that PPO learns from beside")
    capture_dir: Path | None = Field(None, description="capture that PPO learns from beside")
    dataset_label: str | None = Field(None, description="what baselines are kept under; unset: their folder")
    timesteps: int | None = Field(
        None,
        gt=0,
        description="steps of all PPO stages; unset: what the environment is worth, or the schedule's stages say",
    )
    n_cycles: int | None = Field(None, gt=0, description="PPO stages they are divided into")
    critic_warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of the steps in which the critic may learn alone; 0: no such stage",
    )
    critic_explains: float = Field(0.5, lt=1, description="explained variance that ends it sooner")
    kl_coef: float | None = Field(None, ge=0, description="weight of the distance to the clone")
    kl_half_life: float | None = Field(None, gt=0, description="share of all steps in which it halves")
    kl_floor: float | None = Field(None, ge=0, description="what it does not fall below")
    anneal_ratio: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of agent-ticks that the expert drives in the first cycle; 0 in the last",
    )
    bc_weight: float = Field(
        0.0, ge=0, le=1, description="weight of imitating it there; falls as anneal_ratio does"
    )
    bc_threshold: float | None = Field(None, ge=0, le=1, description="held-out accuracy that a clone needs")
    bc: dict[str, Any] = Field(default_factory=dict, description="params of bc, over what suits")
    ppo: dict[str, Any] = Field(default_factory=dict, description="params of ppo, over what suits")
    schedule: tuple[StageParams, ...] = Field(
        (), description="stages; unset: bc, critic_warmup, ppo again and again"
    )
    guardrails: Guardrails = Field(Guardrails(), description="what a stage is held to")
    gate: bool = Field(True, description="judge the best policy beside the release, or beside the clone")
    promotion_dir: Path | None = Field(
        None,
        description="where releases are: the gate judges beside the current one, and its verdict is noted",
    )
    stage_episodes: int | None = Field(
        None, gt=1, description="episodes after every stage, on seeds of their own"
    )
    evaluation_episodes: int | None = Field(
        None,
        ge=0,
        description="held-out episodes of the best policy at the end; 0: none; unset: evaluation.episodes",
    )

    @property
    def recorded(self) -> dict[str, Any]:
        """Params of ppo that name the recorded transitions to learn from beside; none where there are none."""
        named = {"replay_manifest": self.replay_manifest, "capture_dir": self.capture_dir}
        found = {name: path for name, path in named.items() if path is not None}
        return {"mode": "mixed", **found} if found else {}

    @model_validator(mode="after")
    def _an_expert_where_one_is_imitated(self) -> AnnealParams:
        if self.bc_weight and not self.anneal_ratio:
            raise ValueError("bc_weight imitates the expert where it drives: give anneal_ratio too")
        return self

    @model_validator(mode="after")
    def _steps_are_shared_out(self) -> AnnealParams:
        if "timesteps" in self.ppo:
            raise ValueError("ppo.timesteps is the anneal's to share out: give timesteps, or a schedule")
        return self

    @model_validator(mode="after")
    def _a_schedule_says_its_stages(self) -> AnnealParams:
        if self.schedule and self.n_cycles is not None:
            raise ValueError("schedule names the stages one by one: leave n_cycles out")
        ppo = [stage for stage in self.schedule if stage.mode == PPO]
        if ppo and self.timesteps is not None and all("timesteps" in stage.params for stage in ppo):
            raise ValueError("every ppo stage of schedule says its own timesteps: leave the anneal's out")
        return self

    @model_validator(mode="after")
    def _a_given_clone_is_taken_as_it_is(self) -> AnnealParams:
        if self.clone is not None and self.bc:
            raise ValueError("clone is taken as it is, and bc is not run: leave bc out")
        return self

    @model_validator(mode="after")
    def _the_normaliser_is_the_clones(self) -> AnnealParams:
        if self.ppo.get("normalize_observations"):
            raise ValueError(
                "ppo.normalize_observations has no meaning: features stay standardised as the clone's"
            )
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> AnnealParams:
        if self.clone is not None and self.bc_manifest is not None:
            raise ValueError("one of clone and bc_manifest can be named, not both")
        return self

    @model_validator(mode="after")
    def _one_recording(self) -> AnnealParams:
        if self.replay_manifest is not None and self.capture_dir is not None:
            raise ValueError("one of replay_manifest and capture_dir can be named, not both")
        return self
