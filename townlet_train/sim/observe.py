"""What one agent sees: the feature vector, the local map and which actions are legal.

The map is cleared by unsetting the cells set last time, not by zeroing it: most of what a map costs is its empty tiles.
Feature values are in tiles, money and ticks as they are; a learner normalises.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

import numpy as np

from townlet_train.sim import indices as at
from townlet_train.sim.geometry import (
    agent_distance,
    best_object,
    job_distance,
    nearest_agent,
    object_distance,
    way_out,
)
from townlet_train.sim.jobs import in_shift_hours, job_calls
from townlet_train.sim.kernels import Record, kernel
from townlet_train.sim.layout import (
    ACTIONS,
    CHAT,
    EAST,
    EMBED_DIM,
    FRIDGE,
    JOB,
    LATE,
    MAP_RADIUS,
    MAP_SIZE,
    MAX_SLOTS,
    NORTH,
    ON_TIME,
    RELEASE,
    REQUEST,
    SOUTH,
    START,
    STEP_AWAY,
    STOVE,
    WAIT,
    WEST,
)
from townlet_train.sim.objects import can_start, price_now, rival_at
from townlet_train.sim.ties import chat_target

SELF_CELL = MAP_RADIUS * MAP_SIZE + MAP_RADIUS
CHANNEL_CELLS = MAP_SIZE * MAP_SIZE
AGENTS_CHANNEL, OBJECTS_CHANNEL, RESERVATIONS_CHANNEL = 1, 2, 3
MAX_SET_CELLS = 32  # self, 8 agents, 8 objects, 8 reservations

# A fixed number per action, so that the slot means the same in every run when it is switched on.
ACTION_CODE = np.linspace(0.0, 1.0, len(ACTIONS))


@kernel
def observe_town(
    town: Record, params: Record, features: Any, maps: Any, mask: Any, cells: Any, n_cells: Any
) -> None:
    """Fill one town's rows: features (A, F), maps (A, 484), mask (A, 14); `cells` (A, 32) remembers what is set."""
    clock = 2 * pi * town.clock / params.day_ticks
    clock_sin, clock_cos = sin(clock), cos(clock)
    for agent in range(params.n_agents):
        nearest = nearest_agent(town, params, agent)
        features[agent, at.TIME_SIN] = clock_sin
        features[agent, at.TIME_COS] = clock_cos
        _draw_map(town, params, agent, maps[agent], cells[agent], n_cells)
        _fill_state(town, params, agent, features[agent])
        _fill_neighbours(town, params, agent, nearest, features[agent])
        _fill_social(town, params, agent, features[agent])
        _fill_types(town, params, agent, features[agent], mask[agent])
        _fill_targets(town, params, agent, nearest, features[agent])
        _fill_mask(town, params, agent, nearest, mask[agent])


@kernel
def _set_cell(agent_cells: Any, agent_map: Any, count: int, cell: int) -> int:
    """Mark a map cell and remember it; returns the new count."""
    agent_map[cell] = 1
    agent_cells[count] = cell
    return count + 1


@kernel
def _window_cell(town: Record, agent: int, x: int, y: int) -> int:
    """Index of a tile in the agent's window, or -1 when it lies outside."""
    dx, dy = x - town.position[agent, 0], y - town.position[agent, 1]
    if abs(dx) > MAP_RADIUS or abs(dy) > MAP_RADIUS:
        return -1
    return (dy + MAP_RADIUS) * MAP_SIZE + dx + MAP_RADIUS


@kernel
def _draw_map(
    town: Record, params: Record, agent: int, agent_map: Any, agent_cells: Any, n_cells: Any
) -> None:
    """Channels self, agents (self included), objects, reservations; index [channel, y, x], the agent in the middle."""
    for index in range(n_cells[agent]):
        agent_map[agent_cells[index]] = 0
    count = _set_cell(agent_cells, agent_map, 0, SELF_CELL)
    for other in range(params.n_agents):
        cell = _window_cell(town, agent, town.position[other, 0], town.position[other, 1])
        if cell >= 0:
            count = _set_cell(agent_cells, agent_map, count, AGENTS_CHANNEL * CHANNEL_CELLS + cell)
    for item in range(params.n_objects):
        cell = _window_cell(town, agent, town.object_position[item, 0], town.object_position[item, 1])
        if cell >= 0:
            count = _set_cell(agent_cells, agent_map, count, OBJECTS_CHANNEL * CHANNEL_CELLS + cell)
            if town.holder[item] >= 0:
                count = _set_cell(agent_cells, agent_map, count, RESERVATIONS_CHANNEL * CHANNEL_CELLS + cell)
    n_cells[agent] = count


@kernel
def _fill_state(town: Record, params: Record, agent: int, f: Any) -> None:
    """The upstream base features 0 to 24, but for the clock and the rivalry ledger."""
    for need in range(3):
        f[at.NEED + need] = town.needs[agent, need]
    state = town.shift_state[agent]
    f[at.WALLET] = town.wallet[agent]
    f[at.LATENESS_COUNTER] = town.lateness[agent]
    f[at.ON_SHIFT] = (
        1.0 if in_shift_hours(town, params, agent) and (state == ON_TIME or state == LATE) else 0.0
    )
    f[at.ATTENDANCE_RATIO] = (
        town.attendance[agent, 0] + town.attendance[agent, 1] + town.attendance[agent, 2]
    ) / 3
    f[at.WAGES_WITHHELD] = town.wages_withheld[agent]
    for shift in range(5):
        f[at.SHIFT + shift] = 1.0 if state == shift else 0.0
    f[at.EMBEDDING_SLOT_NORM] = agent / MAX_SLOTS
    f[at.CTX_RESET_FLAG] = 1.0 if town.life_ticks[agent] == 0 else 0.0
    f[at.EPISODE_PROGRESS] = town.tick / params.episode_ticks
    if params.previous_action:
        f[at.LAST_ACTION_ID_HASH] = ACTION_CODE[town.last_action[agent]]
        kind = params.object_type[max(town.claim[agent], 0)]
        f[at.LAST_ACTION_DURATION] = params.duration[kind] if town.last_action[agent] == START else 1.0
    f[at.LAST_ACTION_SUCCESS] = town.last_success[agent]
    claim = town.claim[agent]
    holding = claim >= 0 and town.holder[claim] == agent
    f[at.RESERVATION_ACTIVE] = 1.0 if holding else 0.0
    f[at.IN_QUEUE] = 1.0 if claim >= 0 and not holding else 0.0


@kernel
def _fill_neighbours(town: Record, params: Record, agent: int, nearest: int, f: Any) -> None:
    """How much of the town is inside the window."""
    agents = items = held = 0
    for other in range(params.n_agents):
        if other != agent and agent_distance(town, agent, other) <= MAP_RADIUS:
            agents += 1
    for item in range(params.n_objects):
        if object_distance(town, agent, item) <= MAP_RADIUS:
            items += 1
            if town.holder[item] >= 0:
                held += 1
    f[at.NEIGHBOR_AGENT_RATIO] = agents / max(params.n_agents - 1, 1)
    f[at.NEIGHBOR_OBJECT_RATIO] = items / params.n_objects
    f[at.RESERVED_TILE_RATIO] = held / params.n_objects
    f[at.NEAREST_AGENT_DISTANCE] = agent_distance(town, agent, nearest) if nearest >= 0 else params.grid_size


@kernel
def _fill_social(town: Record, params: Record, agent: int, f: Any) -> None:
    """Two top friends and two top rivals, each as an identity code and the tie; then the aggregates."""
    f[at.RIVALRY_MAX] = 0.0
    f[at.RIVALRY_AVOID_COUNT] = 0.0
    trust_sum = rivalry_sum = rivalry_max = 0.0
    trust_max = -1.0
    friend = second_friend = rival = second_rival = -1
    for other in range(params.n_agents):
        if other == agent:
            continue
        ledger = town.rivalry[agent, other]
        f[at.RIVALRY_MAX] = max(f[at.RIVALRY_MAX], ledger)
        if ledger >= params.avoid_threshold:
            f[at.RIVALRY_AVOID_COUNT] += 1.0
        trust, tie = town.trust[agent, other], town.tie_rivalry[agent, other]
        trust_sum += trust
        rivalry_sum += tie
        trust_max = max(trust_max, trust)
        rivalry_max = max(rivalry_max, tie)
        if trust + town.familiarity[agent, other] > 0.0:
            if friend < 0 or _closer(town, agent, other, friend):
                friend, second_friend = other, friend
            elif second_friend < 0 or _closer(town, agent, other, second_friend):
                second_friend = other
        if tie > 0.0:
            if rival < 0 or tie > town.tie_rivalry[agent, rival]:
                rival, second_rival = other, rival
            elif second_rival < 0 or tie > town.tie_rivalry[agent, second_rival]:
                second_rival = other
    others = max(params.n_agents - 1, 1)
    _fill_slot(town, params, agent, friend, 0, f)
    _fill_slot(town, params, agent, second_friend, 1, f)
    _fill_slot(town, params, agent, rival, 2, f)
    _fill_slot(town, params, agent, second_rival, 3, f)
    f[at.SOCIAL_TRUST_MEAN] = trust_sum / others
    f[at.SOCIAL_TRUST_MAX] = trust_max if params.n_agents > 1 else 0.0
    f[at.SOCIAL_RIVALRY_MEAN] = rivalry_sum / others
    f[at.SOCIAL_RIVALRY_MAX] = rivalry_max


@kernel
def _closer(town: Record, agent: int, one: int, other: int) -> bool:
    """Whether the agent is closer friends with the one than with the other."""
    return (
        town.trust[agent, one] + town.familiarity[agent, one]
        > town.trust[agent, other] + town.familiarity[agent, other]
    )


@kernel
def _fill_slot(town: Record, params: Record, agent: int, other: int, slot: int, f: Any) -> None:
    """One social slot: identity code, trust, familiarity, rivalry; zeros when nobody fills it."""
    base = at.SOCIAL + slot * (EMBED_DIM + 3)
    if other < 0:
        for dim in range(EMBED_DIM + 3):
            f[base + dim] = 0.0
        return
    for dim in range(EMBED_DIM):
        f[base + dim] = params.embedding[other, dim]
    f[base + EMBED_DIM] = town.trust[agent, other]
    f[base + EMBED_DIM + 1] = town.familiarity[agent, other]
    f[base + EMBED_DIM + 2] = town.tie_rivalry[agent, other]


@kernel
def _fill_types(town: Record, params: Record, agent: int, f: Any, mask: Any) -> None:
    """One block per object type about the object the agent would go to, and whether it may ask for it."""
    free = not town.busy[agent]
    for kind in range(4):
        item = best_object(town, params, agent, kind)
        dx = town.object_position[item, 0] - town.position[agent, 0]
        dy = town.object_position[item, 1] - town.position[agent, 1]
        distance = max(abs(dx), abs(dy))
        claimed = town.claim[agent] == item
        holding = town.holder[item] == agent
        base = at.TYPE_BLOCK + kind * at.N_TYPE_FEATURES
        cooldown = max(town.cooldown_until[item, agent] - town.tick, 0)
        f[base + at.DX] = dx
        f[base + at.DY] = dy
        f[base + at.DIST] = distance
        f[base + at.DX_SIGN] = np.sign(dx)
        f[base + at.DY_SIGN] = np.sign(dy)
        f[base + at.QUEUE_LENGTH] = town.queue_length[item]
        f[base + at.HOLDING] = 1.0 if holding else 0.0
        f[base + at.WAITING] = 1.0 if claimed and not holding else 0.0
        f[base + at.COOLDOWN] = cooldown
        f[base + at.RIVAL_BLOCKED] = 1.0 if rival_at(town, params, agent, item) else 0.0
        f[base + at.USABLE] = 1.0 if cooldown == 0 and can_start(town, params, agent, item) else 0.0
        mask[REQUEST + kind] = free and distance <= 1 and not claimed
        if kind == STOVE:
            f[at.PATH_HINT_NORTH] = max(-dy, 0) / max(distance, 1)
            f[at.PATH_HINT_SOUTH] = max(dy, 0) / max(distance, 1)
            f[at.PATH_HINT_EAST] = max(dx, 0) / max(distance, 1)
            f[at.PATH_HINT_WEST] = max(-dx, 0) / max(distance, 1)
            f[at.STOVE_FREE] = 1.0 if town.holder[item] < 0 and town.queue_length[item] == 0 else 0.0


@kernel
def _fill_targets(town: Record, params: Record, agent: int, nearest: int, f: Any) -> None:
    """Work, the nearest agent, chat, money, food, and the binary readings of the needs."""
    job = params.job[agent]
    dx = town.job_position[job, 0] - town.position[agent, 0]
    dy = town.job_position[job, 1] - town.position[agent, 1]
    f[at.JOB_CALLS] = 1.0 if job_calls(town, params, agent) else 0.0
    f[at.AT_JOB] = 1.0 if job_distance(town, params, agent) <= 1 else 0.0
    f[at.JOB_DX] = dx
    f[at.JOB_DY] = dy
    f[at.JOB_DX_SIGN] = np.sign(dx)
    f[at.JOB_DY_SIGN] = np.sign(dy)
    if nearest >= 0:
        dx = town.position[nearest, 0] - town.position[agent, 0]
        dy = town.position[nearest, 1] - town.position[agent, 1]
        f[at.NEAREST_AGENT_DX] = dx
        f[at.NEAREST_AGENT_DY] = dy
        f[at.NEAREST_AGENT_DX_SIGN] = np.sign(dx)
        f[at.NEAREST_AGENT_DY_SIGN] = np.sign(dy)
        f[at.NEAREST_AGENT_IS_RIVAL] = 1.0 if town.rivalry[agent, nearest] >= params.avoid_threshold else 0.0
    extroversion = params.extroversion[town.profile[agent]]
    f[at.CHAT_READY] = 1.0 if town.tick >= town.chat_ready_at[agent] else 0.0
    f[at.EXTROVERSION] = extroversion
    f[at.SOCIABLE] = 1.0 if extroversion >= 0 else 0.0
    claim = town.claim[agent]
    f[at.REMAINING_TICKS] = town.remaining[claim] if town.busy[agent] else 0
    f[at.CAN_AFFORD_MEAL] = 1.0 if town.wallet[agent] >= price_now(town, params, FRIDGE) else 0.0
    stock = 0
    for item in range(params.n_objects):
        if params.object_type[item] == FRIDGE:
            stock += town.stock[item]
    f[at.FRIDGE_STOCK] = stock
    f[at.STOCK_LOW] = 1.0 if stock < params.low_stock else 0.0
    lowest = 0
    for need in range(1, 3):
        if town.needs[agent, need] < town.needs[agent, lowest]:
            lowest = need
    for need in range(3):
        f[at.LOW + need] = 1.0 if town.needs[agent, need] < params.low_need else 0.0
        f[at.CRITICAL + need] = 1.0 if town.needs[agent, need] < params.critical_need else 0.0
        f[at.LOWEST + need] = 1.0 if need == lowest else 0.0
    f[at.PRICE_SPIKE] = 1.0 if town.price_spike_left > 0 else 0.0
    f[at.POWER_OUT] = 1.0 if town.power_out_left > 0 else 0.0
    f[at.WATER_OUT] = 1.0 if town.water_out_left > 0 else 0.0


@kernel
def _fill_mask(town: Record, params: Record, agent: int, nearest: int, mask: Any) -> None:
    """Which actions are legal; a running affordance leaves only waiting. Requests are set with the type features."""
    x, y = town.position[agent, 0], town.position[agent, 1]
    claim = town.claim[agent]
    free = not town.busy[agent]
    mask[WAIT] = True
    mask[NORTH] = free and y > 0
    mask[SOUTH] = free and y < params.grid_size - 1
    mask[EAST] = free and x < params.grid_size - 1
    mask[WEST] = free and x > 0
    mask[START] = (
        free and claim >= 0 and town.holder[claim] == agent and can_start(town, params, agent, claim)
    )
    mask[RELEASE] = free and claim >= 0
    mask[CHAT] = free and town.tick >= town.chat_ready_at[agent] and chat_target(town, params, agent) >= 0
    mask[JOB] = free and job_calls(town, params, agent)
    mask[STEP_AWAY] = free and way_out(town, params, agent, nearest) != (0, 0)
