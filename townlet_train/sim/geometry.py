"""Where things are to an agent. Distances are Chebyshev: a diagonal neighbour is one tile away."""

from __future__ import annotations

import numpy as np

from townlet_train.sim.kernels import Record, kernel

STEP_AWAY_DISTANCE = 2


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
def way_out(town: Record, params: Record, agent: int, other: int) -> tuple[int, int]:
    """A step (dx, dy) away from another agent within two tiles, sideways if need be; (0, 0) when there is none."""
    if other < 0 or agent_distance(town, agent, other) > STEP_AWAY_DISTANCE:
        return 0, 0
    x, y = town.position[agent, 0], town.position[agent, 1]
    dx, dy = np.sign(x - town.position[other, 0]), np.sign(y - town.position[other, 1])
    last = params.grid_size - 1
    for step in (1, -1):
        if (dx == step or dx == 0) and 0 <= x + step <= last:
            return step, 0
    for step in (1, -1):
        if (dy == step or dy == 0) and 0 <= y + step <= last:
            return 0, step
    return 0, 0
