"""Everything a town's future depends on, as one numpy record per town; and the config as one record for the kernels.

A town is a record of fixed size, so its exact state is its bytes: copying the array saves it, assigning restores it.
Agents and objects beyond the configured number are unused rows.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.config.town import MAX_AGENTS, MAX_OBJECTS, TownConfig
from townlet_train.sim.layout import EMBED_DIM, EVENTS

N_JOB_TILES = 3

TOWN = np.dtype(
    [
        ("rng_world", "u8"),
        ("rng_events", "u8"),
        ("tick", "i8"),  # since the episode's start
        ("clock", "i8"),  # tick of the day
        ("object_position", "i2", (MAX_OBJECTS, 2)),
        ("job_position", "i2", (N_JOB_TILES, 2)),
        ("stock", "i4", (MAX_OBJECTS,)),  # meals, in fridges
        ("holder", "i1", (MAX_OBJECTS,)),  # agent, or -1
        ("remaining", "i4", (MAX_OBJECTS,)),  # ticks the running affordance still takes; 0 when none runs
        ("stall", "i4", (MAX_OBJECTS,)),
        ("queue", "i1", (MAX_OBJECTS, MAX_AGENTS)),
        ("queue_length", "i1", (MAX_OBJECTS,)),
        ("joined", "i8", (MAX_OBJECTS, MAX_AGENTS)),
        ("cooldown_until", "i8", (MAX_OBJECTS, MAX_AGENTS)),
        ("position", "i2", (MAX_AGENTS, 2)),
        ("needs", "f8", (MAX_AGENTS, 3)),
        ("wallet", "f8", (MAX_AGENTS,)),
        ("profile", "i1", (MAX_AGENTS,)),
        ("claim", "i1", (MAX_AGENTS,)),  # the object held or waited for, or -1
        ("busy", "i1", (MAX_AGENTS,)),  # 1 while an affordance runs
        ("life_ticks", "i8", (MAX_AGENTS,)),
        ("chat_ready_at", "i8", (MAX_AGENTS,)),
        ("shift_state", "i1", (MAX_AGENTS,)),
        ("away_ticks", "i4", (MAX_AGENTS,)),
        ("on_time_ticks", "i4", (MAX_AGENTS,)),
        ("lateness", "i4", (MAX_AGENTS,)),
        ("absences", "i4", (MAX_AGENTS,)),
        ("wages_withheld", "f8", (MAX_AGENTS,)),
        ("attendance", "f8", (MAX_AGENTS, 3)),  # ratio of the last three shifts, newest first
        ("last_action", "i1", (MAX_AGENTS,)),
        ("last_success", "i1", (MAX_AGENTS,)),
        ("trust", "f8", (MAX_AGENTS, MAX_AGENTS)),
        ("familiarity", "f8", (MAX_AGENTS, MAX_AGENTS)),
        ("tie_rivalry", "f8", (MAX_AGENTS, MAX_AGENTS)),
        ("rivalry", "f8", (MAX_AGENTS, MAX_AGENTS)),  # the ledger that decides who avoids whom
        ("price_spike_left", "i4"),
        ("power_out_left", "i4"),
        ("water_out_left", "i4"),
        ("events", "f8", (len(EVENTS),)),
    ],
    align=True,
)

_NUMBERS = (
    *("hunger_decay", "hygiene_decay", "energy_decay", "start_low", "start_high", "respawn", "faint_below"),
    *("starter_wallet", "wallet_cap", "wage"),
    *("age_priority_weight", "ghost_step_boost", "queue_length_boost"),
    *("rivalry_per_conflict", "rivalry_decay", "avoid_threshold", "drop_threshold", "tie_rivalry_decay"),
    *("chat_quality", "late_penalty", "late_tick_penalty", "absent_penalty"),
    *("hunger_weight", "hygiene_weight", "energy_weight", "survival", "punctuality"),
    *("faint_penalty", "eviction_penalty", "clip_per_tick"),
    *("chat_base", "chat_trust", "chat_familiarity", "avoid_conflict", "tie_quality"),
    *("low_need", "critical_need", "low_stock", "price_factor"),
)
_COUNTS = (
    *("n_agents", "grid_size", "day_ticks", "episode_ticks"),
    *("meals_at_start", "meals_cap", "meals_per_cook"),
    *("cooldown_ticks", "ghost_step_after", "chat_distance", "chat_cooldown"),
    *("arrival_window", "grace_ticks", "absent_after", "max_absent", "previous_action"),
)
PARAMS = np.dtype(
    [(name, "f8") for name in _NUMBERS]
    + [(name, "i8") for name in _COUNTS]
    + [
        ("n_objects", "i8"),
        ("n_jobs", "i8"),
        ("social_stage", "i8"),
        ("perturbation_ticks", "i8"),
        ("price_spike_chance", "f8"),
        ("power_outage_chance", "f8"),
        ("water_outage_chance", "f8"),
        ("object_type", "i1", (MAX_OBJECTS,)),
        ("job", "i1", (MAX_AGENTS,)),  # index into the shifts
        ("duration", "i4", (4,)),  # by object type
        ("effect", "f8", (4, 3)),  # by object type and need
        ("price", "f8", (4,)),
        ("shift", "i4", (N_JOB_TILES, 2)),
        ("extroversion", "f8", (4,)),  # by profile
        ("embedding", "f8", (MAX_AGENTS, EMBED_DIM)),
    ],
    align=True,
)

EXTROVERSION = {"balanced": 0.0, "socialite": 0.6, "industrious": -0.2, "stoic": -0.3}  # by profile
SOCIAL_STAGES = ("OFF", "C1", "C2", "C3")


def build_params(config: TownConfig) -> NDArray[Any]:
    """The config as a one-element record array, the form the kernels read."""
    params = np.zeros(1, PARAMS)
    record = params[0]
    sections = (
        config.needs,
        config.economy,
        config.queue,
        config.ties,
        config.employment,
        config.reward,
        config.observation,
    )
    values: dict[str, Any] = {}
    for section in (config, *sections, config.perturbations):
        values.update({name: getattr(section, name) for name in type(section).model_fields})
    for name in (*_NUMBERS, *_COUNTS):
        record[name] = values[name]
    types = _object_types(config)
    record["n_objects"] = len(types)
    record["object_type"][: len(types)] = types
    record["n_jobs"] = len(config.employment.shifts)
    record["job"] = np.arange(MAX_AGENTS) % len(config.employment.shifts)
    record["shift"][: len(config.employment.shifts)] = config.employment.shifts
    record["social_stage"] = SOCIAL_STAGES.index(config.reward.social_stage)
    for kind, affordance in enumerate((config.eat, config.cook, config.wash, config.sleep)):
        record["duration"][kind] = affordance.duration
        record["effect"][kind] = (affordance.hunger, affordance.hygiene, affordance.energy)
        record["price"][kind] = affordance.price
    perturbations = config.perturbations
    record["perturbation_ticks"] = perturbations.duration
    record["price_spike_chance"] = perturbations.price_spike_per_day / config.day_ticks
    record["power_outage_chance"] = perturbations.power_outage_per_day / config.day_ticks
    record["water_outage_chance"] = perturbations.water_outage_per_day / config.day_ticks
    record["extroversion"] = list(EXTROVERSION.values())
    record["embedding"] = [_embedding(slot) for slot in range(MAX_AGENTS)]
    return params


def _object_types(config: TownConfig) -> list[int]:
    """Type index of every object, grouped by type."""
    counts = (config.objects.fridge, config.objects.stove, config.objects.shower, config.objects.bed)
    return [kind for kind, count in enumerate(counts) for _ in range(count)]


def _embedding(slot: int) -> list[float]:
    """A fixed code of an agent's slot, `EMBED_DIM` numbers in [0, 1)."""
    digest = hashlib.blake2s(f"agent-{slot}".encode()).digest()
    return [byte / 256 for byte in digest[:EMBED_DIM]]
