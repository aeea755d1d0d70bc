"""One tick of one town.

Order within a tick: perturbations, actions (who acts first rotates), queues, running affordances, need decay, work,
rivalry decay, rewards, deaths and respawns. Distances are Chebyshev; agents may share a tile; objects are walkable and
are used from their own or a neighbouring tile. `docs/town.md` explains the rules and where they differ from upstream.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from townlet_train.sim.draws import event_uniform
from townlet_train.sim.geometry import job_distance, nearest_agent, object_distance, way_out
from townlet_train.sim.jobs import job_calls, work
from townlet_train.sim.kernels import Record, kernel
from townlet_train.sim.layout import (
    CHAT,
    EAST,
    EVENT_INDEX,
    JOB,
    NORTH,
    RELEASE,
    REQUEST,
    SOUTH,
    START,
    WAIT,
    WEST,
)
from townlet_train.sim.lives import settle
from townlet_train.sim.objects import advance_affordances, advance_queues, drop_claim, request, start
from townlet_train.sim.ties import avoid, chat, decay_rivalry

FAILED = EVENT_INDEX["failed_action"]
WAITED = EVENT_INDEX["wait"]
AGENT_TICK = EVENT_INDEX["agent_tick"]


@kernel
def tick(
    town: Record, params: Record, actions: Any, rewards: Any, terminated: Any, social: Any, working: Any
) -> None:
    """Advance one town by one tick. `actions`, `rewards`, `terminated` are (n_agents,); the last two are scratch."""
    n = params.n_agents
    _perturb(town, params)
    for agent in range(n):
        social[agent] = 0.0
        working[agent] = False
    for turn in range(n):
        agent = (turn + town.tick) % n
        action = actions[agent]
        success = _act(town, params, agent, action, social, working)
        town.last_action[agent] = action
        town.last_success[agent] = success
        if not success:
            town.events[FAILED] += 1
    advance_queues(town, params)
    advance_affordances(town, params)
    _decay_needs(town, params)
    for agent in range(n):
        rewards[agent] = work(town, params, agent, working[agent]) + social[agent]
    decay_rivalry(town, params)
    for agent in range(n):
        settle(town, params, agent, rewards, terminated)
    town.events[AGENT_TICK] += n
    town.tick += 1
    town.clock += 1
    if town.clock == params.day_ticks:
        town.clock = 0


@kernel
def _perturb(town: Record, params: Record) -> None:
    """Let running disturbances wear off and new ones begin."""
    town.price_spike_left = max(0, town.price_spike_left - 1)
    town.power_out_left = max(0, town.power_out_left - 1)
    town.water_out_left = max(0, town.water_out_left - 1)
    if params.price_spike_chance > 0 and event_uniform(town) < params.price_spike_chance:
        town.price_spike_left = params.perturbation_ticks
    if params.power_outage_chance > 0 and event_uniform(town) < params.power_outage_chance:
        town.power_out_left = params.perturbation_ticks
    if params.water_outage_chance > 0 and event_uniform(town) < params.water_outage_chance:
        town.water_out_left = params.perturbation_ticks


@kernel
def _decay_needs(town: Record, params: Record) -> None:
    """Everybody gets a little hungrier, dirtier, more tired."""
    for agent in range(params.n_agents):
        town.needs[agent, 0] = max(0.0, town.needs[agent, 0] - params.hunger_decay)
        town.needs[agent, 1] = max(0.0, town.needs[agent, 1] - params.hygiene_decay)
        town.needs[agent, 2] = max(0.0, town.needs[agent, 2] - params.energy_decay)


@kernel
def _act(town: Record, params: Record, agent: int, action: int, social: Any, working: Any) -> bool:
    """Carry out one action; False when it failed. A running affordance holds the agent: whatever it asks, it waits."""
    if action == WAIT or town.busy[agent]:
        town.events[WAITED] += 1
        return action == WAIT
    if action <= WEST:
        dx = 1 if action == EAST else (-1 if action == WEST else 0)
        dy = 1 if action == SOUTH else (-1 if action == NORTH else 0)
        return _move(town, params, agent, dx, dy)
    if action < START:
        return request(town, params, agent, action - REQUEST, social)
    if action == START:
        return start(town, params, agent)
    if action == RELEASE:
        held = town.claim[agent] >= 0
        drop_claim(town, params, agent)
        return held
    if action == CHAT:
        return chat(town, params, agent, social)
    if action == JOB:
        return _go_to_work(town, params, agent, working)
    return _step_away(town, params, agent, social)


@kernel
def _move(town: Record, params: Record, agent: int, dx: int, dy: int) -> bool:
    """Step to a neighbouring tile; what is out of reach afterwards is given up."""
    x, y = town.position[agent, 0] + dx, town.position[agent, 1] + dy
    if (dx == 0 and dy == 0) or x < 0 or y < 0 or x >= params.grid_size or y >= params.grid_size:
        return False
    town.position[agent, 0] = x
    town.position[agent, 1] = y
    claim = town.claim[agent]
    if claim >= 0 and object_distance(town, agent, claim) > 1:
        drop_claim(town, params, agent)
    return True


@kernel
def _go_to_work(town: Record, params: Record, agent: int, working: Any) -> bool:
    """Work when at the place of work, else take a step towards it, x first."""
    if not job_calls(town, params, agent):
        return False
    if job_distance(town, params, agent) > 1:
        job = params.job[agent]
        dx = np.sign(town.job_position[job, 0] - town.position[agent, 0])
        dy = np.sign(town.job_position[job, 1] - town.position[agent, 1])
        return _move(town, params, agent, dx, 0) if dx != 0 else _move(town, params, agent, 0, dy)
    working[agent] = True
    return True


@kernel
def _step_away(town: Record, params: Record, agent: int, social: Any) -> bool:
    """Step away from the nearest agent within two tiles; leaving a rival counts as avoidance."""
    other = nearest_agent(town, params, agent)
    dx, dy = way_out(town, params, agent, other)
    if not _move(town, params, agent, dx, dy):
        return False
    if town.rivalry[agent, other] >= params.avoid_threshold:
        avoid(town, params, agent, social)
    return True
