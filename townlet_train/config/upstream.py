"""Reading a configuration of the upstream Townlet simulation into ours.

Upstream keys are matched by the tables below. A setting with a counterpart here is carried over; every other one is
listed with the reason why not, and `lost` says whether something was wanted that we could have done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from townlet_train.config.documents import parse_file
from townlet_train.config.layers import check_key, expectation, flatten, nest
from townlet_train.config.run import RunConfig
from townlet_train.errors import ConfigError

UPSTREAM_DAY = 1440
MAX_SHIFTS = 3

_DAY = "observations_config.hybrid.time_ticks_per_day"
_LATE = "town.employment.late_penalty"
_WAGE = "town.economy.wage"

_NEEDS = ("hunger", "hygiene", "energy")

# Upstream key -> ours, where both mean the same.
_SAME = {
    "seed": "seed",
    "features.stages.social_rewards": "town.reward.social_stage",
    _DAY: "town.day_ticks",
    **{f"rewards.needs_weights.{need}": f"town.reward.{need}_weight" for need in _NEEDS},
    **{f"rewards.decay_rates.{need}": f"town.needs.{need}_decay" for need in _NEEDS},
    "rewards.punctuality_bonus": "town.reward.punctuality",
    "rewards.survival_tick": "town.reward.survival",
    "rewards.faint_penalty": "town.reward.faint_penalty",
    "rewards.eviction_penalty": "town.reward.eviction_penalty",
    "rewards.social.C1_chat_base": "town.reward.chat_base",
    "rewards.social.C1_coeff_trust": "town.reward.chat_trust",
    "rewards.social.C1_coeff_fam": "town.reward.chat_familiarity",
    "rewards.social.C2_avoid_conflict": "town.reward.avoid_conflict",
    "rewards.clip.clip_per_tick": "town.reward.clip_per_tick",
    "economy.meal_cost": "town.eat.price",
    "economy.ingredients_cost": "town.cook.price",
    "economy.wage_income": "town.economy.wage",
    "behavior.job_arrival_buffer": "town.employment.arrival_window",
    "employment.grace_ticks": "town.employment.grace_ticks",
    "employment.absent_cutoff": "town.employment.absent_after",
    "employment.late_tick_penalty": "town.employment.late_tick_penalty",
    "employment.absence_penalty": "town.employment.absent_penalty",
    "employment.max_absent_shifts": "town.employment.max_absent",
    "queue_fairness.cooldown_ticks": "town.queue.cooldown_ticks",
    "queue_fairness.ghost_step_after": "town.queue.ghost_step_after",
    "queue_fairness.age_priority_weight": "town.queue.age_priority_weight",
    "conflict.ghost_step_boost": "town.queue.ghost_step_boost",
    "conflict.queue_length_boost": "town.queue.queue_length_boost",
    "conflict.rivalry.increment_per_conflict": "town.ties.rivalry_per_conflict",
    "conflict.rivalry.decay_per_tick": "town.ties.rivalry_decay",
    "conflict.rivalry.avoid_threshold": "town.ties.avoid_threshold",
    "conflict.rivalry.eviction_threshold": "town.ties.drop_threshold",
    "training.rollout_ticks": "rollout.ticks",
    "training.rollout_auto_seed_agents": "rollout.auto_seed_agents",
    "training.social_reward_stage_override": "social.stage",
    "training.social_reward_schedule": "social.schedule",
    "training.bc.manifest": "bc.manifest",
    "training.bc.learning_rate": "bc.learning_rate",
    "training.bc.batch_size": "bc.batch_size",
    "training.bc.epochs": "bc.n_epochs",
    "training.bc.weight_decay": "bc.weight_decay",
    "training.bc.device": "bc.device",
    "ppo.learning_rate": "ppo.learning_rate",
    "ppo.clip_param": "ppo.clip_range",
    "ppo.value_loss_coef": "ppo.vf_coef",
    "ppo.entropy_coef": "ppo.ent_coef",
    "ppo.num_epochs": "ppo.n_epochs",
    "ppo.mini_batch_size": "ppo.batch_size",
    "ppo.gae_lambda": "ppo.gae_lambda",
    "ppo.gamma": "ppo.gamma",
    "ppo.max_grad_norm": "ppo.max_grad_norm",
    "ppo.value_clip": "ppo.clip_range_vf",
    "ppo.advantage_normalization": "ppo.normalize_advantage",
    "scenario.ticks": "rollout.ticks",
    "scenario.seed": "seed",
}

# Upstream key or the start of one -> why it means nothing here. The longest match speaks.
_MEANINGLESS = {
    "config_id": "a run is known here by the hash of its config",
    "policy_hash": "a policy is known here by the hash of its checkpoint",
    "features.stages.relationships": "relationships always run here",
    "features.systems": "the town's systems cannot be switched off",
    "features.behavior": "personalities do not scale needs or rewards here",
    "features.training": "nothing here reads a curiosity phase",
    "features.relationship_modifiers": "personalities do not scale relationships here",
    "features.console": "there is no console",
    "runtime": "there are no providers to choose",
    "telemetry": "there is no telemetry transport; results are files and JSON",
    "stability": "windows of the live simulation are not kept",
    "shaping": "upstream reads it nowhere",
    "curiosity": "upstream reads it nowhere",
    "embedding_allocator": "agents keep their slot",
    "personalities": "profiles go round by agent index",
    "world.weather_seed": "there is no weather",
    "affordances.affordances_file": "import that file by itself",
    "affordances": "affordances run without hooks",
    "rewards.wage_rate": "it only switches the wage on upstream; the wage is town.economy.wage",
    "rewards.clip.clip_per_episode": "episodes are not clipped here",
    "rewards.clip.no_positive_within_death_ticks": "a lost life is priced by town.reward.faint_penalty alone",
    "economy.cook_energy_cost": "what cooking costs is in town.cook.energy",
    "economy.cook_hygiene_cost": "what cooking costs is in town.cook.hygiene",
    "economy.stove_stock_replenish": "ingredients never run out here",
    "employment.enforce_job_loop": "the job loop is always enforced here",
    "employment": "attendance is counted by absences alone here",
    "conflict.handover_boost": "a handover is no conflict",
    "conflict.rivalry.max_edges": "no tie is dropped for want of room",
    "jobs": "a job here is a shift; its tile is drawn in every episode",
    "scenario.description": "a run has no description",
    "scenario.agents": "agents start on random tiles with random needs, and a policy moves them",
    "scenario.objects": "objects stand on random tiles",
    "observations_config": "there is one observation layout, with an 11 by 11 map",
    "training.source": "the command says what is done",
    "training.replay_manifest": "a replay manifest is an argument of the commands that read one",
    "training.anneal": "staged training is not configured from upstream files",
    "ppo.num_mini_batches": "the number follows from batch_size",
    "preconds": "preconditions are rules of the town",
    "hooks": "affordances run without hooks",
}

_NOTES = {
    "economy.meal_cost": "a meal is charged once here, twice upstream",
    "rewards.punctuality_bonus": "paid on worked ticks only, upstream on every tick",
    "scenario.ticks": "a scenario's length, as the length of a capture",
    "seed": "upstream uses it for personalities only, here it seeds everything",
}

_AFFORDANCES = {"eat_meal": "eat", "cook_meal": "cook", "use_shower": "wash", "rest_sleep": "sleep"}


@dataclass(frozen=True)
class Carried:
    """A setting carried over."""

    key: str
    value: object
    target: str
    note: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A setting left out, and why; `lost` when it meant something here and could not be said."""

    key: str
    value: object
    reason: str
    lost: bool = False


@dataclass(frozen=True)
class UpstreamImport:
    """What became of every setting of an upstream file."""

    source: str
    carried: tuple[Carried, ...]
    left_out: tuple[LeftOut, ...]
    config: dict[str, Any]
    warnings: tuple[str, ...]


def import_upstream(path: Path, sections: Mapping[str, type[BaseModel]]) -> UpstreamImport:
    """Read an upstream simulation config or affordance file; `sections` are the params models of the strategies.

    Raises:
        ConfigError: the file cannot be read, or is neither.
    """
    values, _ = parse_file(path)
    if isinstance(values, list) and values and all(isinstance(item, dict) for item in values):
        leaves, outcomes = {}, list(_affordances(values))
    elif isinstance(values, dict) and {"features", "rewards"} <= values.keys():
        leaves = dict(flatten(values))
        outcomes = [outcome for rule in _RULES for outcome in rule(leaves)]
    else:
        raise ConfigError(
            f"{path} is no upstream simulation config (it would have 'features' and 'rewards') "
            f"and no list of affordances."
        )
    outcomes += [_outcome(key, value) for key, value in leaves.items()]
    known = [_known(outcome, sections) for outcome in outcomes]
    left_out = [outcome for outcome in known if isinstance(outcome, LeftOut)]
    carried, doubled = _one_per_target([outcome for outcome in known if isinstance(outcome, Carried)])
    carried, refused = _fitting(carried, sections)
    left_out += doubled + refused
    lost = tuple(
        f"{item.key} = {item.value!r} was left out: {item.reason}." for item in left_out if item.lost
    )
    config = nest({item.target: item.value for item in carried})
    return UpstreamImport(str(path), tuple(carried), tuple(left_out), config, lost)


def _outcome(key: str, value: object) -> Carried | LeftOut:
    """What becomes of a setting that no rule has taken."""
    if key in _SAME:
        if value is None or value == []:
            return LeftOut(key, value, "it is not set")
        return Carried(key, value, _SAME[key], _NOTES.get(key, ""))
    matches = [start for start in _MEANINGLESS if key == start or key.startswith((f"{start}.", f"{start}_"))]
    if matches:
        return LeftOut(key, value, _MEANINGLESS[max(matches, key=len)])
    return LeftOut(key, value, "no setting of that name is known", lost=True)


def _known(outcome: Carried | LeftOut, sections: Mapping[str, type[BaseModel]]) -> Carried | LeftOut:
    """A carried setting whose target exists here; otherwise the setting left out."""
    if isinstance(outcome, LeftOut):
        return outcome
    section, _, field = outcome.target.partition(".")
    if section in ("bc", "ppo") and section not in sections:
        reason = f"no strategy {section!r} is installed; its {field} would take it"
        return LeftOut(outcome.key, outcome.value, reason, lost=True)
    try:
        check_key(outcome.target, outcome.key, sections)
    except ConfigError:
        return LeftOut(outcome.key, outcome.value, f"there is no {outcome.target}", lost=True)
    return outcome


def _fitting(
    carried: list[Carried], sections: Mapping[str, type[BaseModel]]
) -> tuple[list[Carried], list[LeftOut]]:
    """Settings whose values our models take together, and those they refuse."""
    refused: list[LeftOut] = []
    while problem := _problem(carried, sections):
        path, message = problem
        out = [item for item in carried if _overlap(item.target, path)] or carried
        refused += [LeftOut(item.key, item.value, f"{item.target}: {message}", lost=True) for item in out]
        carried = [item for item in carried if item not in out]
    return carried, refused


def _problem(carried: list[Carried], sections: Mapping[str, type[BaseModel]]) -> tuple[str, str] | None:
    """The first thing our models object to: dotted key and message."""
    defaults = dict(flatten(RunConfig().model_dump(mode="json")))
    values = nest(defaults | {item.target: item.value for item in carried})
    models: list[tuple[str, type[BaseModel], Any]] = [
        ("", RunConfig, {name: values[name] for name in values if name not in sections})
    ]
    models += [(name, sections[name], values[name]) for name in values if name in sections]
    for prefix, model, document in models:
        try:
            model.model_validate(document)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                if problem["type"] != "missing":
                    path = ".".join(str(part) for part in (prefix, *problem["loc"]) if part != "")
                    return path, expectation(problem["msg"])
    return None


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _world(leaves: dict[str, Any]) -> Iterator[Carried | LeftOut]:
    """A square grid has one size."""
    size = leaves.pop("world.grid_size", None)
    if size is None:
        return
    if isinstance(size, list) and size and all(side == size[0] for side in size):
        yield Carried("world.grid_size", size[0], "town.grid_size", "a square's side")
    else:
        yield LeftOut("world.grid_size", size, "a town here is square", lost=True)


def _jobs(leaves: dict[str, Any]) -> Iterator[Carried | LeftOut]:
    """Jobs in absolute ticks become shifts by tick of day, as far as they lie within one day and there is room."""
    names = list(dict.fromkeys(key.split(".")[1] for key in leaves if key.startswith("jobs.")))
    if not names:
        return
    day = leaves.get(_DAY)
    day = day if isinstance(day, int) else UPSTREAM_DAY
    shifts: list[list[int]] = []
    for name in names:
        start, end = leaves.pop(f"jobs.{name}.start_tick", None), leaves.pop(f"jobs.{name}.end_tick", None)
        if len(shifts) == MAX_SHIFTS:
            yield LeftOut(f"jobs.{name}", [start, end], f"a town has at most {MAX_SHIFTS} shifts", lost=True)
        elif isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= day:
            shifts.append([start, end])
        else:
            reason = f"absolute ticks {start} to {end} are no shift within a day of {day} ticks"
            yield LeftOut(f"jobs.{name}", [start, end], reason, lost=True)
    if shifts:
        note = "once, on the first day, upstream; every day here"
        yield Carried("jobs", shifts, "town.employment.shifts", note)
        if _DAY not in leaves:
            yield Carried("jobs", day, "town.day_ticks", "upstream's day, which the shifts are ticks of")
    yield from _one_for_all(leaves, [f"jobs.{name}.lateness_penalty" for name in names], _LATE, "jobs")
    yield from _one_for_all(leaves, [f"jobs.{name}.wage_rate" for name in names], _WAGE, "jobs")


def _thresholds(leaves: dict[str, Any]) -> Iterator[Carried | LeftOut]:
    """Three thresholds of upstream's expert are one here."""
    yield from _one_for_all(
        leaves, [f"behavior.{need}_threshold" for need in _NEEDS], "town.observation.low_need", "behavior"
    )


def _scenario(leaves: dict[str, Any]) -> Iterator[Carried | LeftOut]:
    """How many agents and objects a scenario has."""
    agents = _records(leaves, "scenario.agents")
    if agents:
        yield Carried("scenario.agents", len(agents), "town.n_agents", "their number")
        yield from _details("scenario.agents", agents)
    objects = _records(leaves, "scenario.objects")
    if objects:
        yield from _object_counts("scenario.objects", objects, "type")
        yield from _details("scenario.objects", objects)


def _affordances(items: list[dict[str, Any]]) -> Iterator[Carried | LeftOut]:
    """An affordance file: how long things take, what they do, and which objects there are."""
    yield from _object_counts(
        "objects", [item for item in items if item.get("type") == "object"], "object_type"
    )
    for item in items:
        if item.get("type") == "object":
            continue
        name = str(item.get("id"))
        target = _AFFORDANCES.get(name)
        for key, value in flatten({key: value for key, value in item.items() if key != "id"}):
            yield _affordance_setting(f"{name}.{key}", key, value, target)


def _affordance_setting(path: str, key: str, value: Any, target: str | None) -> Carried | LeftOut:
    if target is None:
        return LeftOut(
            path, value, f"there is no such affordance here; ours are {', '.join(_AFFORDANCES)}", lost=True
        )
    if key == "duration":
        return Carried(path, value, f"town.{target}.duration")
    if key == "object_type":
        return LeftOut(path, value, "each affordance belongs to one kind of object")
    effect = key.removeprefix("effects.")
    if effect in _NEEDS:
        return Carried(path, value, f"town.{target}.{effect}")
    if effect == "money" and isinstance(value, int | float):
        return Carried(path, -value, f"town.{target}.price", "paid at the start here")
    reason = _MEANINGLESS.get(key.partition(".")[0])
    return LeftOut(path, value, reason or "no setting of that name is known", lost=reason is None)


def _records(leaves: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Take a list of mappings out of the leaves; anything else stays there, to be told as it is."""
    value = leaves.get(key)
    if not value or not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return []
    records: list[dict[str, Any]] = leaves.pop(key)
    return records


def _object_counts(key: str, objects: list[dict[str, Any]], kind: str) -> Iterator[Carried | LeftOut]:
    for name, count in Counter(str(item.get(kind)) for item in objects).items():
        yield Carried(key, count, f"town.objects.{name}", f"number of objects of type {name}")


def _details(key: str, items: list[dict[str, Any]]) -> Iterator[LeftOut]:
    for index, item in enumerate(items):
        for name, value in item.items():
            yield LeftOut(f"{key}.{index}.{name}", value, _MEANINGLESS[key])


def _one_for_all(
    leaves: dict[str, Any], keys: Iterable[str], target: str, label: str
) -> Iterator[Carried | LeftOut]:
    """Several upstream settings that are one here, carried over when they agree."""
    found = {key: leaves.pop(key) for key in keys if key in leaves}
    values = list(found.values())
    if values and all(value == values[0] for value in values):
        yield Carried(", ".join(found), values[0], target)
    else:
        for key, value in found.items():
            yield LeftOut(key, value, f"{label} differ in it, and here {target} holds for all", lost=True)


def _one_per_target(carried: Iterable[Carried]) -> tuple[list[Carried], list[LeftOut]]:
    """The first setting of each target; one that says the same again is no loss."""
    chosen: dict[str, Carried] = {}
    doubled: list[LeftOut] = []
    for item in carried:
        first = chosen.setdefault(item.target, item)
        if first is not item:
            reason = f"{item.target} is already set by {first.key}"
            doubled.append(LeftOut(item.key, item.value, reason, lost=item.value != first.value))
    return list(chosen.values()), doubled


_RULES: tuple[Callable[[dict[str, Any]], Iterator[Carried | LeftOut]], ...] = (
    _world,
    _jobs,
    _thresholds,
    _scenario,
)
