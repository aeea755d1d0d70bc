"""How an episode and a life begin, what a tick of it is worth, and how it ends."""

from __future__ import annotations

from typing import Any

from townlet_train.sim.draws import world_below, world_uniform
from townlet_train.sim.jobs import in_shift_hours
from townlet_train.sim.kernels import Record, kernel
from townlet_train.sim.layout import EVENT_INDEX, FRIDGE, POST, PRE, WAIT
from townlet_train.sim.objects import drop_claim

FAINT = EVENT_INDEX["faint"]
EVICTION = EVENT_INDEX["eviction"]
CLIPPED = EVENT_INDEX["clipped_reward"]


@kernel
def begin_episode(town: Record, params: Record) -> None:
    """A new layout, a new time of day, new lives. Event counts go on."""
    town.tick = 0
    town.clock = world_below(town, params.day_ticks)
    town.price_spike_left = town.power_out_left = town.water_out_left = 0
    for item in range(params.n_objects):
        _place_object(town, params, item)
        town.stock[item] = params.meals_at_start if params.object_type[item] == FRIDGE else 0
        town.holder[item] = -1
        town.remaining[item] = 0
        town.stall[item] = 0
        town.queue_length[item] = 0
    for job in range(params.n_jobs):
        town.job_position[job, 0] = world_below(town, params.grid_size)
        town.job_position[job, 1] = world_below(town, params.grid_size)
    first_profile = world_below(town, 4)
    for agent in range(params.n_agents):
        town.profile[agent] = (agent + first_profile) % 4
        begin_life(town, params, agent)
        for need in range(3):
            spread = params.start_high - params.start_low
            town.needs[agent, need] = params.start_low + spread * world_uniform(town)


@kernel
def _place_object(town: Record, params: Record, item: int) -> None:
    """A random tile at least two away from every object placed before; after many misses any tile will do."""
    for _ in range(200):
        x, y = world_below(town, params.grid_size), world_below(town, params.grid_size)
        free = True
        for other in range(item):
            if max(abs(town.object_position[other, 0] - x), abs(town.object_position[other, 1] - y)) < 2:
                free = False
        town.object_position[item, 0] = x
        town.object_position[item, 1] = y
        if free:
            return


@kernel
def begin_life(town: Record, params: Record, agent: int) -> None:
    """Whatever an agent owns or owes at the start of a life, but for its place and needs."""
    town.wallet[agent] = params.starter_wallet
    town.claim[agent] = -1
    town.busy[agent] = 0
    town.life_ticks[agent] = 0
    town.chat_ready_at[agent] = 0
    town.shift_state[agent] = POST
    town.away_ticks[agent] = 0
    town.on_time_ticks[agent] = 0
    town.lateness[agent] = 0
    town.absences[agent] = 0
    town.wages_withheld[agent] = 0.0
    town.last_action[agent] = WAIT
    town.last_success[agent] = 1
    for shift in range(3):
        town.attendance[agent, shift] = 1.0
    for other in range(params.n_agents):
        town.trust[agent, other] = town.trust[other, agent] = 0.0
        town.familiarity[agent, other] = town.familiarity[other, agent] = 0.0
        town.tie_rivalry[agent, other] = town.tie_rivalry[other, agent] = 0.0
        town.rivalry[agent, other] = town.rivalry[other, agent] = 0.0
    for item in range(params.n_objects):
        town.cooldown_until[item, agent] = 0
    town.position[agent, 0] = world_below(town, params.grid_size)
    town.position[agent, 1] = world_below(town, params.grid_size)
    if not in_shift_hours(town, params, agent):
        town.shift_state[agent] = PRE


@kernel
def settle(town: Record, params: Record, agent: int, rewards: Any, terminated: Any) -> None:
    """Pay the tick's reward; end a life that is over and begin the next one in the same slot."""
    reward = rewards[agent] + _tick_reward(town, params, agent)
    clip = params.clip_per_tick
    if reward >= clip or reward <= -clip:
        town.events[CLIPPED] += 1
        reward = min(clip, max(-clip, reward))
    fainted = town.needs[agent, 0] <= params.faint_below
    evicted = not fainted and town.absences[agent] >= params.max_absent
    town.life_ticks[agent] += 1
    terminated[agent] = fainted or evicted
    if fainted or evicted:
        town.events[FAINT if fainted else EVICTION] += 1
        reward = min(reward, 0.0) + (params.faint_penalty if fainted else params.eviction_penalty)
        drop_claim(town, params, agent)
        begin_life(town, params, agent)
        for need in range(3):
            town.needs[agent, need] = params.respawn
    rewards[agent] = reward


@kernel
def _tick_reward(town: Record, params: Record, agent: int) -> float:
    """Survival less the weighted squared deficits."""
    hunger, hygiene, energy = 1 - town.needs[agent, 0], 1 - town.needs[agent, 1], 1 - town.needs[agent, 2]
    return (
        params.survival
        - params.hunger_weight * hunger * hunger
        - params.hygiene_weight * hygiene * hygiene
        - params.energy_weight * energy * energy
    )
