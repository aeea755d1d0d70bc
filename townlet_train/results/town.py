"""What the town's doctor measured."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO


class Measurement(BaseModel):
    """One number with its 95 % bootstrap interval over towns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float
    high: float


class DoctorCheckDTO(BaseModel):
    """One promise, what was asked, what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    passed: bool
    measured: str
    required: str


class TownBudgetDTO(ResultDTO):
    """What living in a town takes, before a tick is run."""

    service_share: float = Field(description="share of an agent's ticks spent using fridge, shower and bed")
    cook_share: float = Field(description="share spent cooking what is eaten")
    travel_share: float = Field(description="share spent walking between them")
    total_share: float
    utilisation: dict[str, float] = Field(description="share of each object type's time that is asked for")
    income_per_tick: float
    cost_per_tick: float
    feasible: bool
    verdict: str


class TownDoctorDTO(ResultDTO):
    """Whether the town is worth training on: every promise measured on fixed seeds."""

    healthy: bool
    checks: tuple[DoctorCheckDTO, ...]
    first_seed: int
    n_towns: int = Field(description="seeds first_seed .. first_seed + n_towns - 1, one episode each")
    returns: dict[str, Measurement] = Field(description="episode return by policy, mean over agent slots")
    faints_per_10k: dict[str, Measurement] = Field(description="per 10 000 agent-ticks, by policy")
    conflicts_per_1k: dict[str, Measurement] = Field(description="per 1 000 agent-ticks, by policy")
    clipped_share: dict[str, float] = Field(description="share of rewards at the clip, by policy")
    lone_fasting: Measurement = Field(
        description="return of one agent that never eats, less that of the worst other agent in its town"
    )
    stage_effects: dict[str, Measurement] = Field(
        description="return over the stage before, same towns, same actions"
    )
    dead: tuple[str, ...] = Field(
        description="map channels and features that never move and are not named as dormant"
    )
    dormant: dict[str, str] = Field(description="features that stay constant, and why")
    leak_probe: dict[str, float] = Field(
        description="held-out accuracy of the best single features, unforced frames"
    )
    leak_majority: float = Field(description="accuracy of always naming the commonest action on those frames")
    leak_control: float = Field(description="accuracy of the previous-action feature when it is switched on")
    memory_per_town: int = Field(description="bytes")


class KernelCacheDTO(ResultDTO):
    """Where the town's compiled rules are kept."""

    folder: str
