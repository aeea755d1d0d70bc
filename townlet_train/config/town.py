"""Every knob of the embedded town. The defaults are the parameter set "town-v1".

Ticks are the unit of time, tiles of distance. A need runs from 0 (desperate) to 1 (satisfied). `docs/town.md` tells
what the rules do with these numbers; `townlet_train.sim.feasibility` tells whether anyone could live by them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from townlet_train.config.base import ConfigModel

MAX_AGENTS = 8
MAX_OBJECTS = 8

SocialStage = Literal["OFF", "C1", "C2", "C3"]


class ObjectCounts(ConfigModel):
    """How many of each object stand in the town."""

    fridge: int = Field(1, ge=1, le=4)
    stove: int = Field(1, ge=1, le=4)
    shower: int = Field(1, ge=1, le=4)
    bed: int = Field(1, ge=1, le=4)

    @model_validator(mode="after")
    def _fits(self) -> ObjectCounts:
        total = self.fridge + self.stove + self.shower + self.bed
        if total > MAX_OBJECTS:
            raise ValueError(f"a town holds at most {MAX_OBJECTS} objects, {total} were asked for")
        return self


class NeedsConfig(ConfigModel):
    """How needs fall and where they start."""

    hunger_decay: float = Field(0.006, ge=0, le=1, description="lost per tick")
    hygiene_decay: float = Field(0.003, ge=0, le=1, description="lost per tick")
    energy_decay: float = Field(0.005, ge=0, le=1, description="lost per tick")
    start_low: float = Field(
        0.4, ge=0, le=1, description="lower end of the uniform draw at an episode's start"
    )
    start_high: float = Field(0.9, ge=0, le=1, description="upper end of that draw")
    respawn: float = Field(0.5, ge=0, le=1, description="every need of a respawned agent")
    faint_below: float = Field(0.03, ge=0, le=1, description="hunger at or below this ends the life")


class AffordanceConfig(ConfigModel):
    """One thing an object affords: it runs for `duration` ticks and pays its effects once, at the end."""

    duration: int = Field(gt=0, description="ticks")
    hunger: float = Field(0.0, description="added at the end")
    hygiene: float = Field(0.0, description="added at the end")
    energy: float = Field(0.0, description="added at the end")
    price: float = Field(0.0, ge=0, description="paid once, at the start")


class EconomyConfig(ConfigModel):
    """Money and food."""

    starter_wallet: float = Field(2.0, ge=0, description="at the start of every life")
    wallet_cap: float = Field(20.0, gt=0)
    wage: float = Field(0.045, ge=0, description="per worked tick")
    meals_at_start: int = Field(5, ge=0, description="in each fridge")
    meals_cap: int = Field(12, ge=1, description="a fridge holds no more")
    meals_per_cook: int = Field(2, ge=1, description="meals that one cooking puts into the fridge")


class QueueConfig(ConfigModel):
    """Who may use an object next, and what waiting does."""

    cooldown_ticks: int = Field(
        20, ge=0, le=600, description="after a completed use, for the same agent and object"
    )
    ghost_step_after: int = Field(3, ge=1, le=100, description="stalled ticks between two conflicts")
    age_priority_weight: float = Field(
        0.1, ge=0, le=1, description="how waiting time counts against queue position"
    )
    ghost_step_boost: float = Field(1.5, ge=0)
    queue_length_boost: float = Field(0.25, ge=0)


class TiesConfig(ConfigModel):
    """How rivalry, trust and familiarity move. Numbers are upstream's."""

    rivalry_per_conflict: float = Field(
        0.15, ge=0, description="ledger gain per unit of intensity, both ways"
    )
    rivalry_decay: float = Field(0.005, ge=0, description="ledger loss per tick")
    avoid_threshold: float = Field(
        0.7, ge=0, le=1, description="ledger at or above: the two avoid each other"
    )
    drop_threshold: float = Field(0.05, ge=0, le=1, description="ledger at or below: the edge is forgotten")
    tie_rivalry_decay: float = Field(0.01, ge=0, description="loss per tick of the rivalry in a relationship")
    chat_distance: int = Field(1, ge=0, description="tiles")
    chat_cooldown: int = Field(15, ge=0, description="ticks before the same agent may chat again")
    chat_quality: float = Field(1.0, ge=0, le=1)


class EmploymentConfig(ConfigModel):
    """Shifts by tick of day; an agent's job is its index modulo the number of shifts."""

    shifts: tuple[tuple[int, int], ...] = Field(
        ((10, 50), (60, 100), (110, 150)), min_length=1, max_length=3, description="[start, end) of each job"
    )
    arrival_window: int = Field(12, ge=0, description="ticks before the start in which the job calls")
    grace_ticks: int = Field(5, ge=0, description="not at work by then: late")
    absent_after: int = Field(24, ge=1, description="more ticks of a shift away than this: absent")
    late_penalty: float = Field(0.1, ge=0, description="money, once per late shift")
    late_tick_penalty: float = Field(0.005, ge=0, description="money per tick away while late")
    absent_penalty: float = Field(0.2, ge=0, description="money, once per missed shift")
    max_absent: int = Field(
        3, ge=1, description="missed shifts that cost the home; an attended shift takes one off"
    )


class RewardConfig(ConfigModel):
    """r = survival - sum of weight * (1 - need)^2 + social + wage + punctuality, clipped.

    The tick that ends a life pays at most 0, plus the terminal penalty.
    """

    hunger_weight: float = Field(0.5, ge=0)
    hygiene_weight: float = Field(0.3, ge=0)
    energy_weight: float = Field(0.4, ge=0)
    survival: float = Field(0.25, description="per tick alive")
    punctuality: float = Field(0.05, ge=0, description="per worked tick of a shift begun on time")
    faint_penalty: float = Field(-5.0, le=0, description="added after the clip")
    eviction_penalty: float = Field(-2.0, le=0, description="added after the clip")
    clip_per_tick: float = Field(1.0, gt=0)
    social_stage: SocialStage = Field(
        "OFF", description="OFF, C1 chats pay, C2 avoidance too, C3 chats weighted by the tie"
    )
    chat_base: float = Field(0.01, ge=0)
    chat_trust: float = Field(0.3, ge=0)
    chat_familiarity: float = Field(0.2, ge=0)
    avoid_conflict: float = Field(0.005, ge=0)
    tie_quality: float = Field(
        0.2, ge=0, description="C3: chats are worth 1 + this * (trust - rivalry) times as much"
    )


class ObservationConfig(ConfigModel):
    """What agents see besides the plain state. The thresholds are those of the binary features."""

    low_need: float = Field(0.5, ge=0, le=1, description="a need below this is low")
    critical_need: float = Field(0.25, ge=0, le=1, description="a need below this is critical")
    low_stock: float = Field(3.5, ge=0, description="fewer meals than this in the fridges together is low")
    previous_action: bool = Field(False, description="fill the features that give the previous action away")


class PerturbationConfig(ConfigModel):
    """Seeded disturbances, off by default."""

    price_spike_per_day: float = Field(0.0, ge=0, description="expected number per day")
    power_outage_per_day: float = Field(0.0, ge=0, description="expected number per day; stoves stand still")
    water_outage_per_day: float = Field(0.0, ge=0, description="expected number per day; showers stand still")
    duration: int = Field(40, gt=0, description="ticks each lasts")
    price_factor: float = Field(2.0, ge=1, description="prices are multiplied by this during a spike")


class TownConfig(ConfigModel):
    """A town. `TownConfig()` is town-v1."""

    n_agents: int = Field(6, ge=0, le=MAX_AGENTS)
    grid_size: int = Field(10, ge=4, le=64, description="tiles on a side")
    day_ticks: int = Field(160, gt=0)
    episode_ticks: int = Field(640, gt=0)
    allow_infeasible: bool = Field(
        False, description="run although the feasibility budget says nobody can live"
    )
    objects: ObjectCounts = ObjectCounts()
    needs: NeedsConfig = NeedsConfig()
    eat: AffordanceConfig = AffordanceConfig(duration=3, hunger=0.4, energy=0.05, price=0.4)
    cook: AffordanceConfig = AffordanceConfig(duration=8, hunger=0.3, energy=-0.05, price=0.15)
    wash: AffordanceConfig = AffordanceConfig(duration=6, hygiene=0.45, energy=-0.03, price=0.2)
    sleep: AffordanceConfig = AffordanceConfig(duration=12, energy=0.8)
    economy: EconomyConfig = EconomyConfig()
    queue: QueueConfig = QueueConfig()
    ties: TiesConfig = TiesConfig()
    employment: EmploymentConfig = EmploymentConfig()
    reward: RewardConfig = RewardConfig()
    observation: ObservationConfig = ObservationConfig()
    perturbations: PerturbationConfig = PerturbationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> TownConfig:
        for start, end in self.employment.shifts:
            if not 0 <= start < end <= self.day_ticks:
                raise ValueError(
                    f"shift [{start}, {end}) does not lie within a day of {self.day_ticks} ticks"
                )
            if end - start + self.employment.arrival_window >= self.day_ticks:
                raise ValueError(
                    f"shift [{start}, {end}) and its arrival window of {self.employment.arrival_window} ticks fill the "
                    f"day of {self.day_ticks}; an agent must be off duty at some time"
                )
        if self.needs.start_low > self.needs.start_high:
            raise ValueError(
                f"needs.start_low {self.needs.start_low} is above needs.start_high {self.needs.start_high}"
            )
        return self
