"""Whether the town is worth training on, measured on fixed seeds.

Training upstream was decorative: nobody could live, every reward was the clip, conflicts were counted twice, features
were dead and one of them gave the label away. Each of these is a check here, with an interval over towns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.config.town import TownConfig
from townlet_train.envs.protocol import Observation
from townlet_train.envs.streams import stream
from townlet_train.envs.town import TownVectorEnv
from townlet_train.policies.protocol import Policy
from townlet_train.policies.scripted import scripted_policy
from townlet_train.results import DoctorCheckDTO, Measurement, TownDoctorDTO
from townlet_train.services.evaluation import Episodes, run_episodes
from townlet_train.services.leaks import LeakProbe, probe_leaks
from townlet_train.services.statistics import bootstrap_interval
from townlet_train.sim.layout import DORMANT_FEATURES, EXPERT_FEATURES, FEATURES, MAP_CHANNELS
from townlet_train.sim.state import SOCIAL_STAGES

POLICIES = ("idle", "random", "expert", "fasting")
FIRST_SEED, N_TOWNS = 90_001, 64
LEAK_TOWNS = 24  # the probe holds every frame of this many towns in memory
MAX_FAINTS_PER_10K = 1.0
MAX_CLIPPED_SHARE = 0.05
CONFLICT_RATIO = 5.0  # "well over": the expert's rate against random's

Report = Callable[[int, int], None]


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
    n_runs = len(POLICIES) + 1 + len(SOCIAL_STAGES) + 2
    runs: dict[str, Episodes] = {}
    env = TownVectorEnv(config, n_towns)
    watches = {}
    for name in POLICIES:
        watches[name] = _Watch(scripted_policy(name, env.spec))
        runs[name] = run_episodes(watches[name], env, seeds)
        report(len(runs), n_runs)
    lone = _measure(_lone_fasting(env, seeds))
    report(len(runs) + 1, n_runs)
    stages = _stage_effects(config, seeds)
    report(n_runs - 2, n_runs)
    probe, control = _leaks(config, seeds[:LEAK_TOWNS])
    report(n_runs, n_runs)

    ticks = config.n_agents * config.episode_ticks
    returns = {name: _measure(run.returns.mean(axis=1)) for name, run in runs.items()}
    faints = {name: _measure_rate(run.events["faint"], ticks, per=10_000) for name, run in runs.items()}
    conflicts = {
        name: _measure_rate(run.events["queue_conflict"], ticks, per=1_000) for name, run in runs.items()
    }
    clipped = {name: float(run.events["clipped_reward"].mean() / ticks) for name, run in runs.items()}
    dead = _dead(watches)
    best_read = max(probe.accuracy[name] for name in EXPERT_FEATURES)
    leaks = sorted(name for name, accuracy in probe.accuracy.items() if accuracy > best_read)
    checks = (
        _check(
            "the expert survives",
            faints["expert"].high <= MAX_FAINTS_PER_10K,
            f"{_show(faints['expert'])} faints per 10 000 agent-ticks",
            f"upper bound at most {MAX_FAINTS_PER_10K:g}",
        ),
        _check(
            "rewards are not clipped",
            max(clipped.values()) < MAX_CLIPPED_SHARE,
            ", ".join(f"{name} {share:.1%}" for name, share in clipped.items()),
            f"under {MAX_CLIPPED_SHARE:.0%} for every policy",
        ),
        _check(
            "conflicts depend on the policy",
            conflicts["idle"].mean == 0
            and conflicts["random"].low > 0
            and conflicts["expert"].low > CONFLICT_RATIO * conflicts["random"].high,
            ", ".join(f"{name} {_show(conflicts[name])}" for name in ("idle", "random", "expert"))
            + " per 1 000",
            f"idle 0 < random < expert, the last at least {CONFLICT_RATIO:g} times random",
        ),
        _check(
            "returns rank the policies",
            returns["idle"].high < returns["random"].low and returns["random"].high < returns["expert"].low,
            ", ".join(f"{name} {_show(returns[name])}" for name in ("idle", "random", "expert")),
            "idle < random < expert, intervals apart",
        ),
        _check(
            "eating pays",
            lone.high < 0 and returns["fasting"].high < returns["expert"].low,
            f"one fasting agent among experts {_show(lone)} against the worst of its neighbours",
            "upper bound under 0",
        ),
        *(
            _check(
                f"social stage {stage} changes rewards",
                effect.low > 0 or effect.high < 0,
                _show(effect, digits=4),
                "paired interval without 0",
            )
            for stage, effect in stages.items()
        ),
        _check(
            "every channel and feature is alive",
            not dead,
            f"dead: {', '.join(dead)}"
            if dead
            else f"{len(FEATURES) - len(DORMANT_FEATURES)} features and 4 channels move",
            "all but those named as dormant",
        ),
        _check(
            "no feature gives the label away",
            not leaks,
            f"leaks: {', '.join(leaks)}" if leaks else f"best single feature {_best(probe)}",
            f"none above the best feature the expert reads ({best_read:.3f})",
        ),
        _check(
            "the leak probe can find a leak",
            control > best_read,
            f"previous action switched on: {control:.3f}",
            f"above {best_read:.3f}",
        ),
    )
    ranked = sorted(probe.accuracy.items(), key=lambda item: -item[1])
    return TownDoctorDTO(
        healthy=all(check.passed for check in checks),
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
        warnings=tuple(
            f"{check.check}: {check.measured}; required: {check.required}"
            for check in checks
            if not check.passed
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
    returns = run_episodes(policy, env, seeds).returns
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
        returns.append(run_episodes(scripted_policy("expert", env.spec), env, seeds).returns.mean(axis=1))
    return {
        stage: _measure(after - before)
        for stage, before, after in zip(SOCIAL_STAGES[1:], returns, returns[1:], strict=False)
    }


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
    run_episodes(recorder, env, seeds)
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


def _check(check: str, passed: bool, measured: str, required: str) -> DoctorCheckDTO:
    """One row of the report."""
    return DoctorCheckDTO(check=check, passed=bool(passed), measured=measured, required=required)


def _show(measurement: Measurement, digits: int = 2) -> str:
    """A measurement as "mean [low, high]"."""
    low, high = f"{measurement.low:.{digits}f}", f"{measurement.high:.{digits}f}"
    return f"{measurement.mean:.{digits}f} [{low}, {high}]"


def _best(probe: LeakProbe) -> str:
    """The single feature that names the action best."""
    name = max(probe.accuracy, key=lambda feature: probe.accuracy[feature])
    return f"{name} {probe.accuracy[name]:.3f}"
