"""Whether anyone could live in a town as configured: the budget of time, objects and money, before a tick is run.

For every need the share of an agent's ticks it costs is decay * (duration + travel) / effect; food that must be
cooked adds the cook's time per meal. All shares together must leave room to wait in line, to work and to talk.
"""

from __future__ import annotations

from townlet_train.config.town import TownConfig
from townlet_train.results import TownBudgetDTO

MAX_SHARE = 0.7
MAX_UTILISATION = 1.0


def compute_budget(config: TownConfig) -> TownBudgetDTO:
    """The feasibility budget of a town; an infeasible one warns.

    A need whose affordance does not restore it makes the share infinite.
    """
    travel = mean_travel(config)
    uses = {
        "fridge": _uses_per_tick(config.needs.hunger_decay, config.eat.hunger),
        "shower": _uses_per_tick(config.needs.hygiene_decay, config.wash.hygiene),
        "bed": _uses_per_tick(config.needs.energy_decay, config.sleep.energy),
    }
    uses["stove"] = uses["fridge"] / config.economy.meals_per_cook
    affordances = {"fridge": config.eat, "shower": config.wash, "bed": config.sleep, "stove": config.cook}
    service = sum(uses[kind] * affordances[kind].duration for kind in ("fridge", "shower", "bed"))
    cook = uses["stove"] * config.cook.duration
    walk = sum(uses.values()) * travel
    utilisation = {
        kind: config.n_agents * uses[kind] * affordances[kind].duration / getattr(config.objects, kind)
        for kind in affordances
    }
    cost = sum(uses[kind] * affordances[kind].price for kind in affordances)
    hours = sum(end - start for start, end in config.employment.shifts) / len(config.employment.shifts)
    income = config.economy.wage * hours / config.day_ticks
    share = service + cook + walk
    parts = f"{service:.0%} service, {cook:.0%} cooking, {walk:.0%} travel"
    living = f"living takes {share:.0%} of an agent's ticks ({parts})"
    problems = []
    if share > MAX_SHARE:
        problems.append(f"{living}, at most {MAX_SHARE:.0%} leave room to live")
    crowded = [f"{kind} {rho:.2f}" for kind, rho in utilisation.items() if rho > MAX_UTILISATION]
    if crowded:
        problems.append(f"objects are asked for more time than there is ({', '.join(crowded)})")
    if income < cost:
        problems.append(f"a full shift earns {income:.4f} a tick and living costs {cost:.4f}")
    busiest = max(utilisation, key=lambda kind: utilisation[kind])
    verdict = (
        f"This town is infeasible: {'; '.join(problems)}."
        if problems
        else f"This town is feasible: {living}, its {busiest} is asked for {utilisation[busiest]:.0%} of the time."
    )
    return TownBudgetDTO(
        service_share=service,
        cook_share=cook,
        travel_share=walk,
        total_share=share,
        utilisation=utilisation,
        income_per_tick=income,
        cost_per_tick=cost,
        feasible=not problems,
        verdict=verdict,
        warnings=(verdict,) if problems else (),
    )


def mean_travel(config: TownConfig) -> float:
    """Expected steps between two random tiles: one axis at a time, (n^2 - 1) / 3n each, less the tile of reach."""
    n = config.grid_size
    return max(2 * (n * n - 1) / (3 * n) - 1, 0.0)


def _uses_per_tick(decay: float, effect: float) -> float:
    """How often an affordance must be used to hold a need level."""
    if decay == 0:
        return 0.0
    return decay / effect if effect > 0 else float("inf")
