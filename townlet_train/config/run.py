"""The config of one run: what every command shares. A strategy's params live beside it, under its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from townlet_train.config.base import LARGEST_SEED, ConfigModel
from townlet_train.config.gate import GateSettings
from townlet_train.config.town import SocialStage, TownConfig


class SocialScheduleEntry(ConfigModel):
    """From which cycle on a social reward stage holds."""

    cycle: int = Field(ge=0, description="first cycle of the stage")
    stage: SocialStage = Field(description="OFF, C1, C2 or C3")


class SocialConfig(ConfigModel):
    """Which social rewards are paid in which cycle of a staged run."""

    stage: SocialStage | None = Field(
        None, description="holds in every cycle, over any schedule; unset: the schedule decides"
    )
    schedule: tuple[SocialScheduleEntry, ...] = Field(
        (), description="stages by cycle; before the first, the town's own"
    )

    @model_validator(mode="after")
    def _one_stage_per_cycle(self) -> SocialConfig:
        cycles = [entry.cycle for entry in self.schedule]
        for cycle in cycles:
            if cycles.count(cycle) > 1:
                raise ValueError(f"cycle {cycle} has more than one stage")
        return self


class RolloutConfig(ConfigModel):
    """How demonstrations are captured."""

    ticks: int = Field(640, gt=0, description="ticks captured in every town or other environment")
    towns: int = Field(96, gt=0, description="environments captured, seeds counting up from the run's seed")
    store: Literal["npz", "memmap"] = Field(
        "npz", description="npz: one file per agent; memmap: arrays for large captures"
    )
    compress: bool = Field(True, description="compress npz files")
    auto_seed_agents: bool = Field(False, description="put agents into a town that has none")
    prefix: str = Field("rollout_sample", min_length=1, description="start of every file name")


class EvaluationConfig(ConfigModel):
    """How a policy is measured."""

    episodes: int = Field(100, gt=0, description="episodes, one seed each")
    seed: int = Field(
        20001, ge=0, le=LARGEST_SEED, description="seed of the first episode; the others count up"
    )
    deterministic: bool = Field(False, description="take the most probable action instead of sampling")


class RunConfig(ConfigModel):
    """Everything a run is told, apart from its strategy's params."""

    env: str = Field("town", min_length=1, description="environment id")
    seed: int = Field(42, ge=0, le=LARGEST_SEED, description="seed of every random stream")
    town: TownConfig = Field(TownConfig(), description="the embedded town")
    social: SocialConfig = Field(SocialConfig(), description="social rewards by cycle")
    rollout: RolloutConfig = Field(RolloutConfig(), description="capture of demonstrations")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="measurement of policies")
    gate: GateSettings = Field(GateSettings(), description="judgement of a candidate beside the release")

    @model_validator(mode="after")
    def _seeds_end_where_numbers_do(self) -> RunConfig:
        if (
            max(self.seed + self.rollout.towns, self.evaluation.seed + self.evaluation.episodes)
            > LARGEST_SEED
        ):
            raise ValueError(f"seeds count up from the first and end at {LARGEST_SEED}; choose a smaller one")
        return self

    def town_in_cycle(self, cycle: int = 0) -> TownConfig:
        """The town with the social rewards of that cycle."""
        reward = self.town.reward.model_copy(update={"social_stage": self.social_stage(cycle)})
        return self.town.model_copy(update={"reward": reward})

    def social_stage(self, cycle: int) -> SocialStage:
        """The stage of a cycle: `social.stage`, else the schedule's latest at or before it, else the town's.

        >>> config = RunConfig(social=SocialConfig(schedule=(SocialScheduleEntry(cycle=2, stage="C1"),)))
        >>> [config.social_stage(cycle) for cycle in (1, 2, 3)]
        ['OFF', 'C1', 'C1']
        """
        if self.social.stage is not None:
            return self.social.stage
        begun = [entry for entry in self.social.schedule if entry.cycle <= cycle]
        return max(begun, key=lambda entry: entry.cycle).stage if begun else self.town.reward.social_stage


def config_hash(config: RunConfig, sections: Mapping[str, object] | None = None) -> str:
    """Hex sha256 of the config, and of strategy sections where given, in canonical JSON."""
    document = {**config.model_dump(mode="json"), **(sections or {})}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
