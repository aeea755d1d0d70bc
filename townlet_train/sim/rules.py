"""One tick of one town.

Order within a tick: perturbations, actions (who acts first rotates), queues, running affordances, need decay, work,
rivalry decay, rewards, deaths and respawns. Distances are Chebyshev; agents may share a tile; objects are walkable and
are used from their own or a neighbouring tile. `docs/town.md` explains the rules and where they differ from upstream.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from townlet_train.sim.kernels import kernel
from townlet_train.sim.layout import (
    ABSENT,
    CHAT,
    EAST,
    EVENT_INDEX,
    FRIDGE,
    JOB,
    LATE,
    NORTH,
    ON_TIME,
    POST,
    PRE,
    RELEASE,
    REQUEST,
    SHOWER,
    SOUTH,
    START,
    STOVE,
    WAIT,
    WEST,
)

Record = Any  # a numba record; mypy cannot see its fields

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53

CONFLICT = EVENT_INDEX["queue_conflict"]
INTENSITY = EVENT_INDEX["queue_conflict_intensity"]
HANDOVER = EVENT_INDEX["handover"]
GHOST_STEP = EVENT_INDEX["ghost_step"]
ROTATION = EVENT_INDEX["rotation"]
COOLDOWN_REFUSAL = EVENT_INDEX["cooldown_refusal"]
AVOIDANCE = EVENT_INDEX["avoidance"]
CHAT_SUCCESS = EVENT_INDEX["chat_success"]
CHAT_QUALITY = EVENT_INDEX["chat_quality"]
CHAT_FAILURE = EVENT_INDEX["chat_failure"]
SHARED_MEAL = EVENT_INDEX["shared_meal"]
LATE_HELP = EVENT_INDEX["late_help"]
SHIFT_TAKEOVER = EVENT_INDEX["shift_takeover"]
COMPLETED = EVENT_INDEX["meal"]  # meal, cook, shower, sleep follow in the order of the object types
WORKED = EVENT_INDEX["worked"]
LATE_EVENT = EVENT_INDEX["late"]
ABSENT_EVENT = EVENT_INDEX["absent"]
FAILED = EVENT_INDEX["failed_action"]
FAINT = EVENT_INDEX["faint"]
EVICTION = EVENT_INDEX["eviction"]
CLIPPED = EVENT_INDEX["clipped_reward"]
WAITED = EVENT_INDEX["wait"]
AGENT_TICK = EVENT_INDEX["agent_tick"]

MIN_INTENSITY, MAX_INTENSITY = 0.1, 5.0
HANDOVER_TIE = 0.05  # trust and familiarity gained, rivalry lost, when a place is handed over
MIN_SATISFACTION_TO_ENJOY = 0.15  # a chat pays nothing to someone with a need deficit above 0.85
STEP_AWAY_DISTANCE = 2


@kernel
def _mix(word: np.uint64) -> np.uint64:
    """Steele, Lea and Flood 2014, splitmix64: the output function."""
    word = (word ^ (word >> np.uint64(30))) * _MIX_1
    word = (word ^ (word >> np.uint64(27))) * _MIX_2
    return word ^ (word >> np.uint64(31))


@kernel
def world_uniform(town: Record) -> float:
    """The next number in [0, 1) of the town's world stream."""
    town.rng_world = town.rng_world + _GOLDEN
    return (_mix(town.rng_world) >> np.uint64(11)) * _TO_UNIT


@kernel
def _event_uniform(town: Record) -> float:
    """The next number in [0, 1) of the town's perturbation stream."""
    town.rng_events = town.rng_events + _GOLDEN
    return (_mix(town.rng_events) >> np.uint64(11)) * _TO_UNIT


@kernel
def world_below(town: Record, n: int) -> int:
    """A uniform integer in [0, n) of the town's world stream."""
    return int(world_uniform(town) * n)


@kernel
def job_calls(town: Record, params: Record, agent: int) -> bool:
    """Whether the agent's shift, or the arrival window before it, is open to it."""
    if town.shift_state[agent] == ABSENT or town.shift_state[agent] == POST:
        return False
    job = params.job[agent]
    since_window = town.clock - params.shift[job, 0] + params.arrival_window
    if since_window < 0:
        since_window += params.day_ticks
    elif since_window >= params.day_ticks:
        since_window -= params.day_ticks
    return since_window < params.shift[job, 1] - params.shift[job, 0] + params.arrival_window


@kernel
def agent_distance(town: Record, one: int, other: int) -> int:
    """Tiles between two agents."""
    return max(
        abs(town.position[one, 0] - town.position[other, 0]),
        abs(town.position[one, 1] - town.position[other, 1]),
    )


@kernel
def object_distance(town: Record, agent: int, item: int) -> int:
    """Tiles between an agent and an object."""
    return max(
        abs(town.position[agent, 0] - town.object_position[item, 0]),
        abs(town.position[agent, 1] - town.object_position[item, 1]),
    )


@kernel
def job_distance(town: Record, params: Record, agent: int) -> int:
    """Tiles between an agent and its place of work."""
    job = params.job[agent]
    return max(
        abs(town.position[agent, 0] - town.job_position[job, 0]),
        abs(town.position[agent, 1] - town.job_position[job, 1]),
    )


@kernel
def nearest_agent(town: Record, params: Record, agent: int) -> int:
    """The closest other agent, the lowest index among equals; -1 when alone."""
    best, best_distance = -1, 1 << 30
    for other in range(params.n_agents):
        if other != agent:
            distance = agent_distance(town, agent, other)
            if distance < best_distance:
                best, best_distance = other, distance
    return best


@kernel
def best_object(town: Record, params: Record, agent: int, kind: int) -> int:
    """The object of a type an agent would go to: its own claim, else the least crowded, else the nearest."""
    claim = town.claim[agent]
    if claim >= 0 and params.object_type[claim] == kind:
        return claim
    best, best_cost = -1, 1 << 30
    for item in range(params.n_objects):
        if params.object_type[item] == kind:
            people = town.queue_length[item] + (1 if town.holder[item] >= 0 else 0)
            cost = people * 1024 + object_distance(town, agent, item)
            if cost < best_cost:
                best, best_cost = item, cost
    return best


@kernel
def price_now(town: Record, params: Record, kind: int) -> float:
    """What using an object of this type costs this tick."""
    factor = params.price_factor if town.price_spike_left > 0 else 1.0
    return params.price[kind] * factor


@kernel
def can_start(town: Record, params: Record, agent: int, item: int) -> bool:
    """Whether stock, utilities and money allow this agent to use this object now."""
    kind = params.object_type[item]
    if kind == FRIDGE and town.stock[item] <= 0:
        return False
    if kind == STOVE and town.power_out_left > 0:
        return False
    if kind == SHOWER and town.water_out_left > 0:
        return False
    return town.wallet[agent] >= price_now(town, params, kind)


@kernel
def rival_at(town: Record, params: Record, agent: int, item: int) -> bool:
    """Whether someone this agent avoids holds the object or waits for it."""
    holder = town.holder[item]
    if holder >= 0 and holder != agent and town.rivalry[agent, holder] >= params.avoid_threshold:
        return True
    for place in range(town.queue_length[item]):
        other = town.queue[item, place]
        if other != agent and town.rivalry[agent, other] >= params.avoid_threshold:
            return True
    return False


@kernel
def chat_target(town: Record, params: Record, agent: int) -> int:
    """Whom a chat would address: within reach, least rivalry minus trust; -1 when nobody is near."""
    best, best_cost = -1, 1e30
    for other in range(params.n_agents):
        if other != agent and agent_distance(town, agent, other) <= params.chat_distance:
            cost = town.rivalry[agent, other] - town.trust[agent, other]
            if cost < best_cost:
                best, best_cost = other, cost
    return best


@kernel
def _shift_tie(town: Record, one: int, other: int, trust: float, familiarity: float, rivalry: float) -> None:
    """Move one's relationship towards the other, within its bounds."""
    town.trust[one, other] = min(1.0, max(-1.0, town.trust[one, other] + trust))
    town.familiarity[one, other] = min(1.0, max(-1.0, town.familiarity[one, other] + familiarity))
    town.tie_rivalry[one, other] = min(1.0, max(0.0, town.tie_rivalry[one, other] + rivalry))


@kernel
def _shift_ledger(town: Record, one: int, other: int, amount: float) -> None:
    """Move the rivalry ledger between two agents, both ways."""
    town.rivalry[one, other] = min(1.0, max(0.0, town.rivalry[one, other] + amount))
    town.rivalry[other, one] = min(1.0, max(0.0, town.rivalry[other, one] + amount))


@kernel
def _record_conflict(town: Record, params: Record, actor: int, rival: int, queue_length: int) -> None:
    """A holder kept someone waiting once more."""
    intensity = params.ghost_step_boost + params.queue_length_boost * max(queue_length - 1, 0)
    intensity = min(MAX_INTENSITY, max(MIN_INTENSITY, intensity))
    town.events[CONFLICT] += 1
    town.events[INTENSITY] += intensity
    _shift_ledger(town, actor, rival, params.rivalry_per_conflict * intensity)
    _shift_tie(town, actor, rival, 0.0, 0.0, 0.1 * intensity)
    _shift_tie(town, rival, actor, 0.0, 0.0, 0.05 * intensity)


@kernel
def _leave_queue(town: Record, item: int, agent: int) -> None:
    """Take an agent out of an object's queue."""
    kept = 0
    for place in range(town.queue_length[item]):
        other = town.queue[item, place]
        if other != agent:
            town.queue[item, kept] = other
            kept += 1
    town.queue_length[item] = kept


@kernel
def _promote(town: Record, params: Record, item: int) -> int:
    """Hand the free object to the next in line: least (place - weight * waited). Returns the agent, or -1."""
    town.holder[item] = -1
    town.stall[item] = 0
    best, best_cost = -1, 1e30
    for place in range(town.queue_length[item]):
        agent = town.queue[item, place]
        cost = place - params.age_priority_weight * (town.tick - town.joined[item, agent])
        if cost < best_cost:
            best, best_cost = agent, cost
    if best >= 0:
        _leave_queue(town, item, best)
        town.holder[item] = best
    return best


@kernel
def _drop_claim(town: Record, params: Record, agent: int) -> None:
    """Give up a held object or a place in line; no cooldown follows."""
    item = town.claim[agent]
    if item < 0:
        return
    town.claim[agent] = -1
    if town.holder[item] == agent:
        town.remaining[item] = 0
        town.busy[agent] = 0
        town.cooldown_until[item, agent] = 0
        _promote(town, params, item)
    else:
        _leave_queue(town, item, agent)


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
        _drop_claim(town, params, agent)
    return True


@kernel
def _request(town: Record, params: Record, agent: int, kind: int, social: Any) -> bool:
    """Take a free object or a place in its line."""
    item = best_object(town, params, agent, kind)
    if item < 0 or object_distance(town, agent, item) > 1 or town.claim[agent] == item:
        return False
    if rival_at(town, params, agent, item):
        _avoid(town, params, agent, social)
        return False
    if town.tick < town.cooldown_until[item, agent]:
        town.events[COOLDOWN_REFUSAL] += 1
        return False
    _drop_claim(town, params, agent)
    town.claim[agent] = item
    town.joined[item, agent] = town.tick
    if town.holder[item] < 0:
        town.holder[item] = agent
        town.stall[item] = 0
    else:
        town.queue[item, town.queue_length[item]] = agent
        town.queue_length[item] += 1
    return True


@kernel
def _start(town: Record, params: Record, agent: int) -> bool:
    """Begin to use the object one holds: pay, take the meal, run."""
    item = town.claim[agent]
    if item < 0 or town.holder[item] != agent or not can_start(town, params, agent, item):
        return False
    kind = params.object_type[item]
    town.wallet[agent] -= price_now(town, params, kind)
    if kind == FRIDGE:
        town.stock[item] -= 1
    town.remaining[item] = params.duration[kind]
    town.busy[agent] = 1
    return True


@kernel
def _avoid(town: Record, params: Record, agent: int, social: Any) -> None:
    """An agent kept out of a rival's way."""
    town.events[AVOIDANCE] += 1
    if params.social_stage >= 2:
        social[agent] += params.avoid_conflict


@kernel
def _pay_chat(town: Record, params: Record, subject: int, other: int, social: Any) -> None:
    """C1: what a successful chat is worth to one of the two; C3 weighs it by the tie."""
    if params.social_stage < 1:
        return
    for need in range(3):
        if town.needs[subject, need] < MIN_SATISFACTION_TO_ENJOY:
            return
    trust = town.trust[subject, other]
    worth = (
        params.chat_base
        + params.chat_trust * trust
        + params.chat_familiarity * town.familiarity[subject, other]
    )
    if params.social_stage >= 3:
        worth *= 1.0 + params.tie_quality * (trust - town.rivalry[subject, other])
    social[subject] += worth * params.chat_quality


@kernel
def _chat(town: Record, params: Record, agent: int, social: Any) -> bool:
    """Talk to the closest friend within reach."""
    other = chat_target(town, params, agent)
    if other < 0 or town.tick < town.chat_ready_at[agent]:
        return False
    if town.rivalry[agent, other] >= params.avoid_threshold:
        _avoid(town, params, agent, social)
        return False
    town.chat_ready_at[agent] = town.tick + params.chat_cooldown
    if town.busy[other]:
        town.events[CHAT_FAILURE] += 1
        _shift_tie(town, agent, other, 0.0, -0.05, 0.05)
        if params.social_stage >= 1:
            social[agent] -= 0.5 * params.chat_base
            social[other] -= 0.25 * params.chat_base
        return False
    quality = params.chat_quality
    town.events[CHAT_SUCCESS] += 1
    town.events[CHAT_QUALITY] += quality
    _shift_tie(town, agent, other, 0.05 * quality, 0.10 * quality, 0.0)
    _shift_tie(town, other, agent, 0.05 * quality, 0.10 * quality, 0.0)
    _pay_chat(town, params, agent, other, social)
    _pay_chat(town, params, other, agent, social)
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
    if other < 0 or agent_distance(town, agent, other) > STEP_AWAY_DISTANCE:
        return False
    dx = np.sign(town.position[agent, 0] - town.position[other, 0])
    dy = np.sign(town.position[agent, 1] - town.position[other, 1])
    if dx == 0 and dy == 0:
        dx = 1
    if not _move(town, params, agent, dx, 0) and not _move(town, params, agent, 0, dy):
        return False
    if town.rivalry[agent, other] >= params.avoid_threshold:
        _avoid(town, params, agent, social)
    return True


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
        return _request(town, params, agent, action - REQUEST, social)
    if action == START:
        return _start(town, params, agent)
    if action == RELEASE:
        held = town.claim[agent] >= 0
        _drop_claim(town, params, agent)
        return held
    if action == CHAT:
        return _chat(town, params, agent, social)
    if action == JOB:
        return _go_to_work(town, params, agent, working)
    return _step_away(town, params, agent, social)


@kernel
def _perturb(town: Record, params: Record) -> None:
    """Let running disturbances wear off and new ones begin."""
    town.price_spike_left = max(0, town.price_spike_left - 1)
    town.power_out_left = max(0, town.power_out_left - 1)
    town.water_out_left = max(0, town.water_out_left - 1)
    if params.price_spike_chance > 0 and _event_uniform(town) < params.price_spike_chance:
        town.price_spike_left = params.perturbation_ticks
    if params.power_outage_chance > 0 and _event_uniform(town) < params.power_outage_chance:
        town.power_out_left = params.perturbation_ticks
    if params.water_outage_chance > 0 and _event_uniform(town) < params.water_outage_chance:
        town.water_out_left = params.perturbation_ticks


@kernel
def _advance_queues(town: Record, params: Record) -> None:
    """Every `ghost_step_after` stalled ticks a conflict; only a holder who does not use the object is ousted."""
    for item in range(params.n_objects):
        holder = town.holder[item]
        if holder < 0 or town.queue_length[item] == 0:
            town.stall[item] = 0
            continue
        town.stall[item] += 1
        if town.stall[item] < params.ghost_step_after:
            continue
        town.stall[item] = 0
        _record_conflict(town, params, holder, town.queue[item, 0], town.queue_length[item])
        if town.remaining[item] > 0:
            continue
        town.events[GHOST_STEP] += 1
        _promote(town, params, item)
        town.queue[item, town.queue_length[item]] = holder
        town.queue_length[item] += 1
        town.joined[item, holder] = town.tick
        town.events[ROTATION] += 1


@kernel
def _share_meal(town: Record, params: Record, eater: int) -> None:
    """A meal that ends beside somebody who is free is shared with them."""
    shared = False
    for other in range(params.n_agents):
        if other != eater and not town.busy[other] and agent_distance(town, eater, other) <= 1:
            _shift_tie(town, eater, other, 0.1, 0.25, 0.0)
            _shift_tie(town, other, eater, 0.1, 0.25, 0.0)
            shared = True
    if shared:
        town.events[SHARED_MEAL] += 1


@kernel
def _complete(town: Record, params: Record, item: int) -> None:
    """An affordance ran its time: pay the effects, hand the object on."""
    agent = town.holder[item]
    kind = params.object_type[item]
    for need in range(3):
        town.needs[agent, need] = min(1.0, max(0.0, town.needs[agent, need] + params.effect[kind, need]))
    town.events[COMPLETED + kind] += 1
    town.busy[agent] = 0
    town.claim[agent] = -1
    town.cooldown_until[item, agent] = town.tick + params.cooldown_ticks
    if kind == FRIDGE:
        _share_meal(town, params, agent)
    elif kind == STOVE:
        _stock_fridges(town, params)
    successor = _promote(town, params, item)
    if successor >= 0:
        town.events[HANDOVER] += 1
        _shift_tie(town, agent, successor, HANDOVER_TIE, HANDOVER_TIE, -HANDOVER_TIE)
        _shift_tie(town, successor, agent, HANDOVER_TIE, HANDOVER_TIE, -HANDOVER_TIE)
        _shift_ledger(town, agent, successor, -HANDOVER_TIE)


@kernel
def _stock_fridges(town: Record, params: Record) -> None:
    """Cooked meals go one by one to the emptiest fridge that has room."""
    for _ in range(params.meals_per_cook):
        best = -1
        for item in range(params.n_objects):
            if params.object_type[item] == FRIDGE and (best < 0 or town.stock[item] < town.stock[best]):
                best = item
        if town.stock[best] < params.meals_cap:
            town.stock[best] += 1


@kernel
def _advance_affordances(town: Record, params: Record) -> None:
    """Count running affordances down. An outage stops the clock of what it starves."""
    for item in range(params.n_objects):
        if town.remaining[item] > 0:
            kind = params.object_type[item]
            if (kind == STOVE and town.power_out_left > 0) or (kind == SHOWER and town.water_out_left > 0):
                continue
            town.remaining[item] -= 1
            if town.remaining[item] == 0:
                _complete(town, params, item)


@kernel
def _decay_needs(town: Record, params: Record) -> None:
    """Everybody gets a little hungrier, dirtier, more tired."""
    for agent in range(params.n_agents):
        town.needs[agent, 0] = max(0.0, town.needs[agent, 0] - params.hunger_decay)
        town.needs[agent, 1] = max(0.0, town.needs[agent, 1] - params.hygiene_decay)
        town.needs[agent, 2] = max(0.0, town.needs[agent, 2] - params.energy_decay)


@kernel
def _miss_shift(town: Record, params: Record, agent: int) -> None:
    """Absent: it costs money, and colleagues on shift resent it."""
    town.shift_state[agent] = ABSENT
    town.absences[agent] += 1
    town.wallet[agent] = max(0.0, town.wallet[agent] - params.absent_penalty)
    town.events[ABSENT_EVENT] += 1
    for other in range(params.n_agents):
        if other != agent and _on_shift_together(town, params, agent, other):
            town.events[SHIFT_TAKEOVER] += 1
            _shift_tie(town, other, agent, -0.1, 0.0, 0.3)


@kernel
def _come_late(town: Record, params: Record, agent: int) -> None:
    """Late: it costs money, and colleagues on shift help out."""
    town.shift_state[agent] = LATE
    town.lateness[agent] += 1
    town.wallet[agent] = max(0.0, town.wallet[agent] - params.late_penalty)
    town.events[LATE_EVENT] += 1
    for other in range(params.n_agents):
        if other != agent and _on_shift_together(town, params, agent, other):
            town.events[LATE_HELP] += 1
            _shift_tie(town, agent, other, 0.2, 0.1, -0.1)


@kernel
def _on_shift_together(town: Record, params: Record, agent: int, other: int) -> bool:
    """Whether the other has the same job and is at it."""
    state = town.shift_state[other]
    return params.job[other] == params.job[agent] and (state == ON_TIME or state == LATE)


@kernel
def _work(town: Record, params: Record, agent: int, worked: bool) -> float:
    """Move an agent's shift on by a tick and pay it; returns wage plus punctuality."""
    job = params.job[agent]
    start, end = params.shift[job, 0], params.shift[job, 1]
    now = town.clock
    if now == (start - params.arrival_window) % params.day_ticks:
        town.shift_state[agent] = PRE
        town.away_ticks[agent] = 0
        town.on_time_ticks[agent] = 0
    if now == end % params.day_ticks and town.shift_state[agent] != POST:
        _end_shift(town, params, agent)
    if now < start or now >= end or town.shift_state[agent] == ABSENT or town.shift_state[agent] == POST:
        return 0.0
    if worked:
        if town.shift_state[agent] == PRE:
            town.shift_state[agent] = ON_TIME
        town.events[WORKED] += 1
        town.wallet[agent] = min(params.wallet_cap, town.wallet[agent] + params.wage)
        if town.shift_state[agent] == ON_TIME:
            town.on_time_ticks[agent] += 1
            return params.wage + params.punctuality
        return params.wage
    town.away_ticks[agent] += 1
    if town.shift_state[agent] == PRE and now - start >= params.grace_ticks:
        _come_late(town, params, agent)
    if town.shift_state[agent] == LATE:
        town.wallet[agent] = max(0.0, town.wallet[agent] - params.late_tick_penalty)
        town.wages_withheld[agent] += params.wage
    if town.away_ticks[agent] > params.absent_after:
        _miss_shift(town, params, agent)
    return 0.0


@kernel
def _end_shift(town: Record, params: Record, agent: int) -> None:
    """Close the books of a shift: attendance, and one missed shift forgiven for one attended."""
    job = params.job[agent]
    scheduled = params.shift[job, 1] - params.shift[job, 0]
    town.attendance[agent, 2] = town.attendance[agent, 1]
    town.attendance[agent, 1] = town.attendance[agent, 0]
    town.attendance[agent, 0] = town.on_time_ticks[agent] / scheduled
    if town.shift_state[agent] != ABSENT:
        town.absences[agent] = max(0, town.absences[agent] - 1)
    town.shift_state[agent] = POST


@kernel
def _decay_rivalry(town: Record, params: Record) -> None:
    """Grudges fade; a ledger edge at or below the threshold is forgotten."""
    for one in range(params.n_agents):
        for other in range(params.n_agents):
            if town.rivalry[one, other] > 0.0:
                left = town.rivalry[one, other] - params.rivalry_decay
                town.rivalry[one, other] = left if left > params.drop_threshold else 0.0
            if town.tie_rivalry[one, other] > 0.0:
                town.tie_rivalry[one, other] = max(
                    0.0, town.tie_rivalry[one, other] - params.tie_rivalry_decay
                )


@kernel
def _begin_life(town: Record, params: Record, agent: int) -> None:
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
def in_shift_hours(town: Record, params: Record, agent: int) -> bool:
    """Whether the agent's shift is under way by the clock."""
    job = params.job[agent]
    return params.shift[job, 0] <= town.clock < params.shift[job, 1]


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
    _advance_queues(town, params)
    _advance_affordances(town, params)
    _decay_needs(town, params)
    for agent in range(n):
        rewards[agent] = _work(town, params, agent, working[agent]) + social[agent]
    _decay_rivalry(town, params)
    for agent in range(n):
        _settle(town, params, agent, rewards, terminated)
    town.events[AGENT_TICK] += n
    town.tick += 1
    town.clock += 1
    if town.clock == params.day_ticks:
        town.clock = 0


@kernel
def _settle(town: Record, params: Record, agent: int, rewards: Any, terminated: Any) -> None:
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
        _drop_claim(town, params, agent)
        _begin_life(town, params, agent)
        for need in range(3):
            town.needs[agent, need] = params.respawn
    rewards[agent] = reward


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
        _begin_life(town, params, agent)
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
