"""What agents are to each other: trust, familiarity and rivalry, chats, and staying out of a rival's way."""

from __future__ import annotations

from typing import Any

from townlet_train.sim.geometry import agent_distance
from townlet_train.sim.kernels import Record, kernel
from townlet_train.sim.layout import EVENT_INDEX

AVOIDANCE = EVENT_INDEX["avoidance"]
CHAT_SUCCESS = EVENT_INDEX["chat_success"]
CHAT_QUALITY = EVENT_INDEX["chat_quality"]
CHAT_FAILURE = EVENT_INDEX["chat_failure"]
MIN_SATISFACTION_TO_ENJOY = 0.15  # a chat pays nothing to someone with a need deficit above 0.85


@kernel
def shift_tie(town: Record, one: int, other: int, trust: float, familiarity: float, rivalry: float) -> None:
    """Move one's relationship towards the other, within its bounds."""
    town.trust[one, other] = min(1.0, max(-1.0, town.trust[one, other] + trust))
    town.familiarity[one, other] = min(1.0, max(-1.0, town.familiarity[one, other] + familiarity))
    town.tie_rivalry[one, other] = min(1.0, max(0.0, town.tie_rivalry[one, other] + rivalry))


@kernel
def shift_ledger(town: Record, one: int, other: int, amount: float) -> None:
    """Move the rivalry ledger between two agents, both ways."""
    town.rivalry[one, other] = min(1.0, max(0.0, town.rivalry[one, other] + amount))
    town.rivalry[other, one] = min(1.0, max(0.0, town.rivalry[other, one] + amount))


@kernel
def avoid(town: Record, params: Record, agent: int, social: Any) -> None:
    """An agent kept out of a rival's way."""
    town.events[AVOIDANCE] += 1
    if params.social_stage >= 2:
        social[agent] += params.avoid_conflict


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
def chat(town: Record, params: Record, agent: int, social: Any) -> bool:
    """Talk to the closest friend within reach."""
    other = chat_target(town, params, agent)
    if other < 0 or town.tick < town.chat_ready_at[agent]:
        return False
    if town.rivalry[agent, other] >= params.avoid_threshold:
        avoid(town, params, agent, social)
        return False
    town.chat_ready_at[agent] = town.tick + params.chat_cooldown
    if town.busy[other]:
        town.events[CHAT_FAILURE] += 1
        shift_tie(town, agent, other, 0.0, -0.05, 0.05)
        if params.social_stage >= 1:
            social[agent] -= 0.5 * params.chat_base
            social[other] -= 0.25 * params.chat_base
        return False
    quality = params.chat_quality
    town.events[CHAT_SUCCESS] += 1
    town.events[CHAT_QUALITY] += quality
    shift_tie(town, agent, other, 0.05 * quality, 0.10 * quality, 0.0)
    shift_tie(town, other, agent, 0.05 * quality, 0.10 * quality, 0.0)
    _pay_chat(town, params, agent, other, social)
    _pay_chat(town, params, other, agent, social)
    return True


@kernel
def decay_rivalry(town: Record, params: Record) -> None:
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
