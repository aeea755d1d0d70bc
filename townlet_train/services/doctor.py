"""Whether the town is worth training on, measured on fixed seeds.

Training upstream was decorative: nobody could live, every reward was the clip, conflicts were counted twice, features
were dead and one of them gave the label away. Each of these is a check here, with an interval over towns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.config.town import TownConfig
from townlet_train.envs.episodes import Episodes, Report, run_episodes
from townlet_train.envs.protocol import Observation
from townlet_train.envs.streams import stream
from townlet_train.envs.town import TownVectorEnv
from townlet_train.policies.protocol import Policy
from townlet_train.policies.scripted import scripted_policy
from townlet_train.results import DoctorCheckDTO, Measurement, TownDoctorDTO
from townlet_train.services.leaks import LeakProbe, probe_leaks
from townlet_train.services.statistics import bootstrap_interval, paired_difference
from townlet_train.sim.layout import DORMANT_FEATURES, EXPERT_FEATURES, FEATURES, MAP_CHANNELS
from townlet_train.sim.state import SOCIAL_STAGES

POLICIES = ("idle", "random", "expert", "fasting")
FIRST_SEED, N_TOWNS = 90_001, 64
LEAK_TOWNS = 24  # the probe holds every frame of this many towns in memory
MAX_FAINTS_PER_10K = 1.0
MAX_CLIPPED_SHARE = 0.05
CONFLICT_RATIO = 5.0  # "well over": the expert's rate against random's


class Frames(NamedTuple):
    """Everything a policy saw and did in some towns."""

    features: NDArray[np.float32]  # (n_ticks, n_towns, n_agents, n_features)
    mask: NDArray[np.bool_]  # (n_ticks, n_towns, n_agents, n_actions)
    actions: NDArray[np.int64]  # (n_ticks, n_towns, n_agents)


def examine_town(
    config: TownConfig, report: Report = lambda done, total: None, *, n_towns: int = N_TOWNS
) -> TownDoctorDTO:
    """Every promise about the town, measured. `report` hears how many of the runs are done and may raise to stop."""
    seeds = list(range(FIRST_SEED, FIRST_SEED + n_towns))
    env = TownVectorEnv(config, n_towns)
    watches = {name: _Watch(scripted_policy(name, env.spec)) for name in POLICIES}
    n_parts = len(POLICIES) + 3
    runs: dict[str, Episodes] = {}
    for done, (name, watch) in enumerate(watches.items(), start=1):
        runs[name] = run_episodes(watch.act, env, seeds)
        report(done, n_parts)
    lone = _measure(_lone_fasting(env, seeds))
    report(n_parts - 2, n_parts)
    stages = _stage_effects(config, seeds)
    report(n_parts - 1, n_parts)
    probe, control = _leaks(config, seeds[:LEAK_TOWNS])
    report(n_parts, n_parts)

    ticks = config.n_agents * config.episode_ticks
    returns = {name: _measure(run.returns.mean(axis=1)) for name, run in runs.items()}
    faints = {name: _measure_rate(run.events["faint"], ticks, per=10_000) for name, run in runs.items()}
    conflicts = {
        name: _measure_rate(run.events["queue_conflict"], ticks, per=1_000) for name, run in runs.items()
    }
    clipped = {name: float(run.events["clipped_reward"].mean() / ticks) for name, run in runs.items()}
    dead = _dead(watches)
    checks = (
        _check_survival(faints["expert"]),
        _check_clipping(clipped),
        _check_conflicts(conflicts),
        _check_ranking(returns),
        _check_eating(lone, returns),
        *(_check_stage(stage, effect) for stage, effect in stages.items()),
        _check_life(dead),
        *_check_leaks(probe, control),
    )
    ranked = sorted(probe.accuracy.items(), key=lambda item: -item[1])
    missed = [check for check in checks if not check.passed]
    return TownDoctorDTO(
        healthy=not missed,
        checks=checks,
        first_seed=FIRST_SEED,
        n_towns=n_towns,
        returns=returns,
        faints_per_10k=faints,
        conflicts_per_1k=conflicts,
        clipped_share=clipped,
        lone_fasting=lone,
        stage_effects=stages,
        dead=tuple(dead),
        dormant=dict(DORMANT_FEATURES),
        leak_probe=dict(ranked[:10]),
        leak_majority=probe.majority,
        leak_control=control,
        memory_per_town=env.nbytes // n_towns,
        warnings=tuple(f"{check.check}: {check.measured}; required: {check.required}" for check in missed),
    )


def _check_survival(faints: Measurement) -> DoctorCheckDTO:
    return DoctorCheckDTO(
        check="the expert survives",
        passed=faints.high <= MAX_FAINTS_PER_10K,
        measured=f"{_show(faints)} faints per 10 000 agent-ticks",
        required=f"upper bound at most {MAX_FAINTS_PER_10K:g}",
    )


def _check_clipping(clipped: dict[str, float]) -> DoctorCheckDTO:
    return DoctorCheckDTO(
        check="rewards are not clipped",
        passed=max(clipped.values()) < MAX_CLIPPED_SHARE,
        measured=", ".join(f"{name} {share:.1%}" for name, share in clipped.items()),
        required=f"under {MAX_CLIPPED_SHARE:.0%} for every policy",
    )


def _check_conflicts(conflicts: dict[str, Measurement]) -> DoctorCheckDTO:
    idle, random, expert = (conflicts[name] for name in ("idle", "random", "expert"))
    return DoctorCheckDTO(
        check="conflicts depend on the policy",
        passed=idle.mean == 0 and random.low > 0 and expert.low > CONFLICT_RATIO * random.high,
        measured=f"idle {_show(idle)}, random {_show(random)}, expert {_show(expert)} per 1 000",
        required=f"idle 0 < random < expert, the last at least {CONFLICT_RATIO:g} times random",
    )


def _check_ranking(returns: dict[str, Measurement]) -> DoctorCheckDTO:
    idle, random, expert = (returns[name] for name in ("idle", "random", "expert"))
    return DoctorCheckDTO(
        check="returns rank the policies",
        passed=idle.high < random.low and random.high < expert.low,
        measured=f"idle {_show(idle)}, random {_show(random)}, expert {_show(expert)}",
        required="idle < random < expert, intervals apart",
    )


def _check_eating(lone: Measurement, returns: dict[str, Measurement]) -> DoctorCheckDTO:
    return DoctorCheckDTO(
        check="eating pays",
        passed=lone.high < 0 and returns["fasting"].high < returns["expert"].low,
        measured=f"one fasting agent among experts {_show(lone)} against the worst of its neighbours",
        required="upper bound under 0, and a town that fasts under one that eats",
    )


def _check_stage(stage: str, effect: Measurement) -> DoctorCheckDTO:
    return DoctorCheckDTO(
        check=f"social stage {stage} changes rewards",
        passed=effect.low > 0 or effect.high < 0,
        measured=_show(effect, digits=4),
        required="paired interval without 0",
    )


def _check_life(dead: list[str]) -> DoctorCheckDTO:
    alive = f"{len(FEATURES) - len(DORMANT_FEATURES)} features and {len(MAP_CHANNELS)} channels move"
    return DoctorCheckDTO(
        check="every channel and feature is alive",
        passed=not dead,
        measured=f"dead: {', '.join(dead)}" if dead else alive,
        required="all but those named as dormant",
    )


def _check_leaks(probe: LeakProbe, control: float) -> tuple[DoctorCheckDTO, DoctorCheckDTO]:
    """No feature may beat the best one the decision rule reads, and the probe must notice one that does."""
    unavoidable = max(probe.accuracy[name] for name in EXPERT_FEATURES)
    leaks = sorted(name for name, accuracy in probe.accuracy.items() if accuracy > unavoidable)
    unread = {name: accuracy for name, accuracy in probe.accuracy.items() if name not in EXPERT_FEATURES}
    best = max(unread, key=lambda feature: unread[feature])
    named = f"; leaks: {', '.join(leaks)}" if leaks else ""
    return (
        DoctorCheckDTO(
            check="no feature gives the label away",
            passed=not leaks,
            measured=f"best feature the expert does not read: {best} {probe.accuracy[best]:.3f}{named}",
            required=f"none above the best one it reads ({unavoidable:.3f})",
        ),
        DoctorCheckDTO(
            check="the leak probe can find a leak",
            passed=control > unavoidable,
            measured=f"previous action switched on: {control:.3f}",
            required=f"above {unavoidable:.3f}",
        ),
    )


class _Watch:
    """A policy, and the range of everything it was shown."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self._policy = policy
        self.lowest: NDArray[np.float32] | None = None
        self.highest: NDArray[np.float32] | None = None
        self.channels = np.zeros(len(MAP_CHANNELS), np.bool_)

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """The policy's actions."""
        low, high = observation.features.min(axis=(0, 1)), observation.features.max(axis=(0, 1))
        self.lowest = low if self.lowest is None else np.minimum(self.lowest, low)
        self.highest = high if self.highest is None else np.maximum(self.highest, high)
        self.channels |= observation.maps.any(axis=(0, 1, 3, 4))
        return self._policy.act(observation, uniforms)


class _LoneFasting:
    """Experts all but one: in town e, agent e modulo the number of agents never eats."""

    name = "lone fasting"

    def __init__(self, env: TownVectorEnv) -> None:
        self._expert = scripted_policy("expert", env.spec)
        self._fasting = scripted_policy("fasting", env.spec)
        self.slot = np.arange(env.n_envs) % env.n_agents

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """The expert's actions but for one agent in each town."""
        actions = self._expert.act(observation, uniforms)
        rows = np.arange(len(actions))
        actions[rows, self.slot] = self._fasting.act(observation, uniforms)[rows, self.slot]
        return actions


class _Recorder:
    """A policy whose every observation and action is kept."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self._policy = policy
        self._seen: list[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]] = []

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """The policy's actions."""
        actions = self._policy.act(observation, uniforms)
        self._seen.append((observation.features.copy(), observation.action_mask.copy(), actions))
        return actions

    @property
    def frames(self) -> Frames:
        """Everything kept so far, time first."""
        features, masks, actions = zip(*self._seen, strict=True)
        return Frames(np.stack(features), np.stack(masks), np.stack(actions))


def _measure(values: NDArray[np.float64]) -> Measurement:
    """The mean over towns with its bootstrap interval."""
    interval = bootstrap_interval(values, stream(FIRST_SEED, "bootstrap"))
    return Measurement(mean=float(values.mean()), low=interval.low, high=interval.high)


def _measure_rate(counts: NDArray[np.float64], ticks: int, *, per: int) -> Measurement:
    """Events per `per` agent-ticks. Where none was seen the upper end is the exact one of a Poisson count of zero."""
    measured = _measure(counts / ticks * per)
    if counts.any():
        return measured
    return Measurement(mean=0.0, low=0.0, high=-math.log(0.025) / (len(counts) * ticks) * per)


def _lone_fasting(env: TownVectorEnv, seeds: list[int]) -> NDArray[np.float64]:
    """Per town: the fasting agent's return less that of the worst other agent. (n_towns,)"""
    policy = _LoneFasting(env)
    returns = run_episodes(policy.act, env, seeds).returns
    rows = np.arange(len(returns))
    fasting = returns[rows, policy.slot]
    others = returns.copy()
    others[rows, policy.slot] = np.inf
    difference: NDArray[np.float64] = fasting - others.min(axis=1)
    return difference


def _stage_effects(config: TownConfig, seeds: list[int]) -> dict[str, Measurement]:
    """The expert's return under each stage less the one before; rewards alone differ, so the pairs are exact."""
    returns = []
    for stage in SOCIAL_STAGES:
        reward = config.reward.model_copy(update={"social_stage": stage})
        env = TownVectorEnv(config.model_copy(update={"reward": reward}), len(seeds))
        expert = scripted_policy("expert", env.spec)
        returns.append(run_episodes(expert.act, env, seeds).returns.mean(axis=1))
    effects = {}
    for stage, before, after in zip(SOCIAL_STAGES[1:], returns, returns[1:], strict=False):
        difference = paired_difference(after, before, stream(FIRST_SEED, "bootstrap"))
        effects[stage] = Measurement(
            mean=difference.mean, low=difference.interval.low, high=difference.interval.high
        )
    return effects


def _leaks(config: TownConfig, seeds: list[int]) -> tuple[LeakProbe, float]:
    """The probe on the default layout, and what the previous-action feature reaches when it is switched on."""
    plain = probe_leaks(*_record(config, seeds), FEATURES)
    shown = config.observation.model_copy(update={"previous_action": True})
    control = probe_leaks(*_record(config.model_copy(update={"observation": shown}), seeds), FEATURES)
    return plain, control.accuracy["last_action_id_hash"]


def _record(config: TownConfig, seeds: list[int]) -> Frames:
    """An episode of the expert in each town."""
    env = TownVectorEnv(config, len(seeds))
    recorder = _Recorder(scripted_policy("expert", env.spec))
    run_episodes(recorder.act, env, seeds)
    return recorder.frames


def _dead(watches: dict[str, _Watch]) -> list[str]:
    """Channels never set and features never moving under any policy, but for those named as dormant."""
    lowest = np.min([watch.lowest for watch in watches.values() if watch.lowest is not None], axis=0)
    highest = np.max([watch.highest for watch in watches.values() if watch.highest is not None], axis=0)
    channels = np.any([watch.channels for watch in watches.values()], axis=0)
    dead = [f"map channel {name}" for name, alive in zip(MAP_CHANNELS, channels, strict=True) if not alive]
    moves = lowest < highest
    dead += [
        name
        for name, alive in zip(FEATURES, moves, strict=True)
        if not alive and name not in DORMANT_FEATURES
    ]
    return dead


def _show(measurement: Measurement, digits: int = 2) -> str:
    """A measurement as "mean [low, high]"."""
    low, high = f"{measurement.low:.{digits}f}", f"{measurement.high:.{digits}f}"
    return f"{measurement.mean:.{digits}f} [{low}, {high}]"
