"""Who holds an object, who waits for it, and what using it does."""

from __future__ import annotations

from typing import Any

from townlet_train.sim.geometry import agent_distance, best_object, object_distance
from townlet_train.sim.kernels import Record, kernel
from townlet_train.sim.layout import EVENT_INDEX, FRIDGE, SHOWER, STOVE
from townlet_train.sim.ties import avoid, shift_ledger, shift_tie

CONFLICT = EVENT_INDEX["queue_conflict"]
INTENSITY = EVENT_INDEX["queue_conflict_intensity"]
HANDOVER = EVENT_INDEX["handover"]
GHOST_STEP = EVENT_INDEX["ghost_step"]
ROTATION = EVENT_INDEX["rotation"]
COOLDOWN_REFUSAL = EVENT_INDEX["cooldown_refusal"]
SHARED_MEAL = EVENT_INDEX["shared_meal"]
COMPLETED = EVENT_INDEX["meal"]  # meal, cook, shower, sleep follow in the order of the object types
MIN_INTENSITY, MAX_INTENSITY = 0.1, 5.0
HANDOVER_TIE = 0.05  # trust and familiarity gained, rivalry lost, when a place is handed over


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
def promote(town: Record, params: Record, item: int) -> int:
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
def drop_claim(town: Record, params: Record, agent: int) -> None:
    """Give up a held object or a place in line; no cooldown follows."""
    item = town.claim[agent]
    if item < 0:
        return
    town.claim[agent] = -1
    if town.holder[item] == agent:
        town.remaining[item] = 0
        town.busy[agent] = 0
        town.cooldown_until[item, agent] = 0
        promote(town, params, item)
    else:
        _leave_queue(town, item, agent)


@kernel
def request(town: Record, params: Record, agent: int, kind: int, social: Any) -> bool:
    """Take a free object or a place in its line."""
    item = best_object(town, params, agent, kind)
    if item < 0 or object_distance(town, agent, item) > 1 or town.claim[agent] == item:
        return False
    if rival_at(town, params, agent, item):
        avoid(town, params, agent, social)
        return False
    if town.tick < town.cooldown_until[item, agent]:
        town.events[COOLDOWN_REFUSAL] += 1
        return False
    drop_claim(town, params, agent)
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
def start(town: Record, params: Record, agent: int) -> bool:
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
def _record_conflict(town: Record, params: Record, actor: int, rival: int, queue_length: int) -> None:
    """A holder kept someone waiting once more."""
    intensity = params.ghost_step_boost + params.queue_length_boost * max(queue_length - 1, 0)
    intensity = min(MAX_INTENSITY, max(MIN_INTENSITY, intensity))
    town.events[CONFLICT] += 1
    town.events[INTENSITY] += intensity
    shift_ledger(town, actor, rival, params.rivalry_per_conflict * intensity)
    shift_tie(town, actor, rival, 0.0, 0.0, 0.1 * intensity)
    shift_tie(town, rival, actor, 0.0, 0.0, 0.05 * intensity)


@kernel
def advance_queues(town: Record, params: Record) -> None:
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
        promote(town, params, item)
        town.queue[item, town.queue_length[item]] = holder
        town.queue_length[item] += 1
        town.joined[item, holder] = town.tick
        town.events[ROTATION] += 1


@kernel
def advance_affordances(town: Record, params: Record) -> None:
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
    successor = promote(town, params, item)
    if successor >= 0:
        town.events[HANDOVER] += 1
        shift_tie(town, agent, successor, HANDOVER_TIE, HANDOVER_TIE, -HANDOVER_TIE)
        shift_tie(town, successor, agent, HANDOVER_TIE, HANDOVER_TIE, -HANDOVER_TIE)
        shift_ledger(town, agent, successor, -HANDOVER_TIE)


@kernel
def _share_meal(town: Record, params: Record, eater: int) -> None:
    """A meal that ends beside somebody who is free is shared with them."""
    shared = False
    for other in range(params.n_agents):
        if other != eater and not town.busy[other] and agent_distance(town, eater, other) <= 1:
            shift_tie(town, eater, other, 0.1, 0.25, 0.0)
            shift_tie(town, other, eater, 0.1, 0.25, 0.0)
            shared = True
    if shared:
        town.events[SHARED_MEAL] += 1


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
