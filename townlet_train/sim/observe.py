"""What one agent sees: the feature vector, the local map and which actions are legal.

The map is cleared by unsetting the cells set last time, not by zeroing it: most of what a map costs is its empty tiles.
Feature values are in tiles, money and ticks as they are; a learner normalises.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

import numpy as np

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
    FEATURE_INDEX,
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
    TYPE_FEATURES,
    WAIT,
    WEST,
)
from townlet_train.sim.objects import can_start, price_now, rival_at
from townlet_train.sim.ties import chat_target

WALLET = FEATURE_INDEX["wallet"]
LATENESS_COUNTER = FEATURE_INDEX["lateness_counter"]
ON_SHIFT = FEATURE_INDEX["on_shift"]
TIME_SIN = FEATURE_INDEX["time_sin"]
TIME_COS = FEATURE_INDEX["time_cos"]
ATTENDANCE_RATIO = FEATURE_INDEX["attendance_ratio"]
WAGES_WITHHELD = FEATURE_INDEX["wages_withheld"]
EMBEDDING_SLOT_NORM = FEATURE_INDEX["embedding_slot_norm"]
CTX_RESET_FLAG = FEATURE_INDEX["ctx_reset_flag"]
EPISODE_PROGRESS = FEATURE_INDEX["episode_progress"]
RIVALRY_MAX = FEATURE_INDEX["rivalry_max"]
RIVALRY_AVOID_COUNT = FEATURE_INDEX["rivalry_avoid_count"]
LAST_ACTION_ID_HASH = FEATURE_INDEX["last_action_id_hash"]
LAST_ACTION_SUCCESS = FEATURE_INDEX["last_action_success"]
LAST_ACTION_DURATION = FEATURE_INDEX["last_action_duration"]
RESERVATION_ACTIVE = FEATURE_INDEX["reservation_active"]
IN_QUEUE = FEATURE_INDEX["in_queue"]
PATH_HINT_NORTH = FEATURE_INDEX["path_hint_north"]
PATH_HINT_SOUTH = FEATURE_INDEX["path_hint_south"]
PATH_HINT_EAST = FEATURE_INDEX["path_hint_east"]
PATH_HINT_WEST = FEATURE_INDEX["path_hint_west"]
NEIGHBOR_AGENT_RATIO = FEATURE_INDEX["neighbor_agent_ratio"]
NEIGHBOR_OBJECT_RATIO = FEATURE_INDEX["neighbor_object_ratio"]
RESERVED_TILE_RATIO = FEATURE_INDEX["reserved_tile_ratio"]
NEAREST_AGENT_DISTANCE = FEATURE_INDEX["nearest_agent_distance"]
SOCIAL_TRUST_MEAN = FEATURE_INDEX["social_trust_mean"]
SOCIAL_TRUST_MAX = FEATURE_INDEX["social_trust_max"]
SOCIAL_RIVALRY_MEAN = FEATURE_INDEX["social_rivalry_mean"]
SOCIAL_RIVALRY_MAX = FEATURE_INDEX["social_rivalry_max"]
JOB_CALLS = FEATURE_INDEX["job_calls"]
AT_JOB = FEATURE_INDEX["at_job"]
JOB_DX = FEATURE_INDEX["job_dx"]
JOB_DY = FEATURE_INDEX["job_dy"]
JOB_DX_SIGN = FEATURE_INDEX["job_dx_sign"]
JOB_DY_SIGN = FEATURE_INDEX["job_dy_sign"]
NEAREST_AGENT_DX = FEATURE_INDEX["nearest_agent_dx"]
NEAREST_AGENT_DY = FEATURE_INDEX["nearest_agent_dy"]
NEAREST_AGENT_DX_SIGN = FEATURE_INDEX["nearest_agent_dx_sign"]
NEAREST_AGENT_DY_SIGN = FEATURE_INDEX["nearest_agent_dy_sign"]
NEAREST_AGENT_IS_RIVAL = FEATURE_INDEX["nearest_agent_is_rival"]
CHAT_READY = FEATURE_INDEX["chat_ready"]
EXTROVERSION = FEATURE_INDEX["extroversion"]
SOCIABLE = FEATURE_INDEX["sociable"]
REMAINING_TICKS = FEATURE_INDEX["remaining_ticks"]
CAN_AFFORD_MEAL = FEATURE_INDEX["can_afford_meal"]
FRIDGE_STOCK = FEATURE_INDEX["fridge_stock"]
STOCK_LOW = FEATURE_INDEX["stock_low"]
STOVE_FREE = FEATURE_INDEX["stove_free"]
PRICE_SPIKE = FEATURE_INDEX["price_spike"]
POWER_OUT = FEATURE_INDEX["power_out"]
WATER_OUT = FEATURE_INDEX["water_out"]
NEED = FEATURE_INDEX["need_hunger"]
CRITICAL = FEATURE_INDEX["critical_hunger"]
LOWEST = FEATURE_INDEX["lowest_hunger"]
DX = TYPE_FEATURES.index("dx")
DY = TYPE_FEATURES.index("dy")
DIST = TYPE_FEATURES.index("dist")
DX_SIGN = TYPE_FEATURES.index("dx_sign")
DY_SIGN = TYPE_FEATURES.index("dy_sign")
QUEUE_LENGTH = TYPE_FEATURES.index("queue_length")
HOLDING = TYPE_FEATURES.index("holding")
WAITING = TYPE_FEATURES.index("waiting")
COOLDOWN = TYPE_FEATURES.index("cooldown")
RIVAL_BLOCKED = TYPE_FEATURES.index("rival_blocked")
USABLE = TYPE_FEATURES.index("usable")
SHIFT = FEATURE_INDEX["shift_pre"]
SOCIAL = FEATURE_INDEX["social_slot0_d0"]
TYPE_BLOCK = FEATURE_INDEX["fridge_dx"]
LOW = FEATURE_INDEX["low_hunger"]
N_TYPE_FEATURES = len(TYPE_FEATURES)

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
        features[agent, TIME_SIN] = clock_sin
        features[agent, TIME_COS] = clock_cos
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
        f[NEED + need] = town.needs[agent, need]
    state = town.shift_state[agent]
    f[WALLET] = town.wallet[agent]
    f[LATENESS_COUNTER] = town.lateness[agent]
    f[ON_SHIFT] = 1.0 if in_shift_hours(town, params, agent) and (state == ON_TIME or state == LATE) else 0.0
    f[ATTENDANCE_RATIO] = (
        town.attendance[agent, 0] + town.attendance[agent, 1] + town.attendance[agent, 2]
    ) / 3
    f[WAGES_WITHHELD] = town.wages_withheld[agent]
    for shift in range(5):
        f[SHIFT + shift] = 1.0 if state == shift else 0.0
    f[EMBEDDING_SLOT_NORM] = agent / MAX_SLOTS
    f[CTX_RESET_FLAG] = 1.0 if town.life_ticks[agent] == 0 else 0.0
    f[EPISODE_PROGRESS] = town.tick / params.episode_ticks
    if params.previous_action:
        f[LAST_ACTION_ID_HASH] = ACTION_CODE[town.last_action[agent]]
        kind = params.object_type[max(town.claim[agent], 0)]
        f[LAST_ACTION_DURATION] = params.duration[kind] if town.last_action[agent] == START else 1.0
    f[LAST_ACTION_SUCCESS] = town.last_success[agent]
    claim = town.claim[agent]
    holding = claim >= 0 and town.holder[claim] == agent
    f[RESERVATION_ACTIVE] = 1.0 if holding else 0.0
    f[IN_QUEUE] = 1.0 if claim >= 0 and not holding else 0.0


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
    f[NEIGHBOR_AGENT_RATIO] = agents / max(params.n_agents - 1, 1)
    f[NEIGHBOR_OBJECT_RATIO] = items / params.n_objects
    f[RESERVED_TILE_RATIO] = held / params.n_objects
    f[NEAREST_AGENT_DISTANCE] = agent_distance(town, agent, nearest) if nearest >= 0 else params.grid_size


@kernel
def _fill_social(town: Record, params: Record, agent: int, f: Any) -> None:
    """Two top friends and two top rivals, each as an identity code and the tie; then the aggregates."""
    f[RIVALRY_MAX] = 0.0
    f[RIVALRY_AVOID_COUNT] = 0.0
    trust_sum = rivalry_sum = rivalry_max = 0.0
    trust_max = -1.0
    friend = second_friend = rival = second_rival = -1
    for other in range(params.n_agents):
        if other == agent:
            continue
        ledger = town.rivalry[agent, other]
        f[RIVALRY_MAX] = max(f[RIVALRY_MAX], ledger)
        if ledger >= params.avoid_threshold:
            f[RIVALRY_AVOID_COUNT] += 1.0
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
    f[SOCIAL_TRUST_MEAN] = trust_sum / others
    f[SOCIAL_TRUST_MAX] = trust_max if params.n_agents > 1 else 0.0
    f[SOCIAL_RIVALRY_MEAN] = rivalry_sum / others
    f[SOCIAL_RIVALRY_MAX] = rivalry_max


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
    base = SOCIAL + slot * (EMBED_DIM + 3)
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
        base = TYPE_BLOCK + kind * N_TYPE_FEATURES
        cooldown = max(town.cooldown_until[item, agent] - town.tick, 0)
        f[base + DX] = dx
        f[base + DY] = dy
        f[base + DIST] = distance
        f[base + DX_SIGN] = np.sign(dx)
        f[base + DY_SIGN] = np.sign(dy)
        f[base + QUEUE_LENGTH] = town.queue_length[item]
        f[base + HOLDING] = 1.0 if holding else 0.0
        f[base + WAITING] = 1.0 if claimed and not holding else 0.0
        f[base + COOLDOWN] = cooldown
        f[base + RIVAL_BLOCKED] = 1.0 if rival_at(town, params, agent, item) else 0.0
        f[base + USABLE] = 1.0 if cooldown == 0 and can_start(town, params, agent, item) else 0.0
        mask[REQUEST + kind] = free and distance <= 1 and not claimed
        if kind == STOVE:
            f[PATH_HINT_NORTH] = max(-dy, 0) / max(distance, 1)
            f[PATH_HINT_SOUTH] = max(dy, 0) / max(distance, 1)
            f[PATH_HINT_EAST] = max(dx, 0) / max(distance, 1)
            f[PATH_HINT_WEST] = max(-dx, 0) / max(distance, 1)
            f[STOVE_FREE] = 1.0 if town.holder[item] < 0 and town.queue_length[item] == 0 else 0.0


@kernel
def _fill_targets(town: Record, params: Record, agent: int, nearest: int, f: Any) -> None:
    """Work, the nearest agent, chat, money, food, and the binary readings of the needs."""
    job = params.job[agent]
    dx = town.job_position[job, 0] - town.position[agent, 0]
    dy = town.job_position[job, 1] - town.position[agent, 1]
    f[JOB_CALLS] = 1.0 if job_calls(town, params, agent) else 0.0
    f[AT_JOB] = 1.0 if job_distance(town, params, agent) <= 1 else 0.0
    f[JOB_DX] = dx
    f[JOB_DY] = dy
    f[JOB_DX_SIGN] = np.sign(dx)
    f[JOB_DY_SIGN] = np.sign(dy)
    if nearest >= 0:
        dx = town.position[nearest, 0] - town.position[agent, 0]
        dy = town.position[nearest, 1] - town.position[agent, 1]
        f[NEAREST_AGENT_DX] = dx
        f[NEAREST_AGENT_DY] = dy
        f[NEAREST_AGENT_DX_SIGN] = np.sign(dx)
        f[NEAREST_AGENT_DY_SIGN] = np.sign(dy)
        f[NEAREST_AGENT_IS_RIVAL] = 1.0 if town.rivalry[agent, nearest] >= params.avoid_threshold else 0.0
    extroversion = params.extroversion[town.profile[agent]]
    f[CHAT_READY] = 1.0 if town.tick >= town.chat_ready_at[agent] else 0.0
    f[EXTROVERSION] = extroversion
    f[SOCIABLE] = 1.0 if extroversion >= 0 else 0.0
    claim = town.claim[agent]
    f[REMAINING_TICKS] = town.remaining[claim] if town.busy[agent] else 0
    f[CAN_AFFORD_MEAL] = 1.0 if town.wallet[agent] >= price_now(town, params, FRIDGE) else 0.0
    stock = 0
    for item in range(params.n_objects):
        if params.object_type[item] == FRIDGE:
            stock += town.stock[item]
    f[FRIDGE_STOCK] = stock
    f[STOCK_LOW] = 1.0 if stock < params.low_stock else 0.0
    lowest = 0
    for need in range(1, 3):
        if town.needs[agent, need] < town.needs[agent, lowest]:
            lowest = need
    for need in range(3):
        f[LOW + need] = 1.0 if town.needs[agent, need] < params.low_need else 0.0
        f[CRITICAL + need] = 1.0 if town.needs[agent, need] < params.critical_need else 0.0
        f[LOWEST + need] = 1.0 if need == lowest else 0.0
    f[PRICE_SPIKE] = 1.0 if town.price_spike_left > 0 else 0.0
    f[POWER_OUT] = 1.0 if town.power_out_left > 0 else 0.0
    f[WATER_OUT] = 1.0 if town.water_out_left > 0 else 0.0


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
