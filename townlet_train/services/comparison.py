"""Which training method is better: interquartile means over runs, as Agarwal et al. (2021) recommend.

A run is one number, what its policy earns; its episodes share its luck and are no sample of its method.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ValidationError

from townlet_train.envs.streams import stream
from townlet_train.errors import UnknownNameError, UsageError
from townlet_train.results import CompareDTO, MethodDTO, MethodPairDTO
from townlet_train.services.statistics import (
    Sample,
    improvement_probability,
    iqm,
    iqm_estimate,
    stratified_interval,
    stratified_resamples,
)

METRICS = ("evaluation.mean", "evaluation.iqm", "final_reward_mean")  # the first is held-out, whoever has it
CONFIDENCE = 0.95
FEW_RUNS = 5  # with fewer, intervals of resamples are too narrow
RESAMPLING_SEED = 20251121  # fixed, so that equal runs give equal intervals


class _Metadata(BaseModel):
    algorithm: str
    environment: str
    seed: int
    total_timesteps: int | None = None


class _Reached(BaseModel):
    final_reward_mean: float | None = None
    evaluation: dict[str, Any] | None = None


class _Experiment(BaseModel):
    metadata: _Metadata
    hyperparameters: dict[str, Any]
    result: _Reached


class _Document(BaseModel):
    """What is read here of a results document; it says more."""

    experiment_results: _Experiment


class TrainingRun(NamedTuple):
    """One run as its results document tells of it."""

    path: Path
    env: str
    seed: int
    group: str
    timesteps: int | None
    values: Mapping[str, float]  # by metric


def compare_runs(
    paths: Sequence[Path], *, by: tuple[str, ...] = ("strategy",), metric: str | None = None
) -> CompareDTO:
    """Every group of runs, and every two groups beside each other, in each environment.

    Args:
        by: "strategy", or names of params that tell groups apart.
        metric: one of `METRICS`; the first that all runs have unless given.

    Raises:
        UsageError: a file is no result of a run, a run is there twice, a group has one run, or values are missing.
    """
    runs = [read_run(path, by) for path in paths]
    metric = _chosen_metric(runs, metric)
    groups: dict[tuple[str, str], list[TrainingRun]] = {}
    for run in runs:
        groups.setdefault((run.env, run.group), []).append(run)
    for members in groups.values():
        _check_runs(members)
    samples = {key: np.array([run.values[metric] for run in members]) for key, members in groups.items()}
    pairs = tuple(
        _pair(env, first, second, samples)
        for (env, first), (other, second) in combinations(groups, 2)
        if env == other
    )
    return CompareDTO(
        metric=metric,
        by=", ".join(by),
        confidence=CONFIDENCE,
        methods=tuple(_method(key, groups[key], samples[key]) for key in groups),
        pairs=pairs,
        answer=tuple(
            _answer(pair, len(groups[pair.env, pair.first]), len(groups[pair.env, pair.second]))
            for pair in pairs
        ),
        warnings=_doubts(groups),
    )


def read_run(path: Path, by: Iterable[str] = ("strategy",)) -> TrainingRun:
    """A run from its directory or its results document.

    Raises:
        UsageError: it is none; the sentence says why.
    """
    file = _results_file(path)
    try:
        told = _Document.model_validate_json(file.read_bytes()).experiment_results
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ": ".join(filter(None, (".".join(str(part) for part in first["loc"]), first["msg"])))
        raise UsageError(
            f"{file} is not the results document of a run ({what}). Name one that a training command wrote."
        ) from error
    run = told.metadata
    named = {"strategy": run.algorithm.lower(), **told.hyperparameters}
    unknown = next((name for name in by if name not in named), None)
    if unknown is not None:
        raise UnknownNameError("param to group by", unknown, named, f"Looked in {file}.")
    label = " ".join(str(named[name]) if name == "strategy" else f"{name}={named[name]}" for name in by)
    return TrainingRun(file, run.environment, run.seed, label, run.total_timesteps, _values(told.result))


def _results_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*_results.json"))
    if len(found) != 1:
        raise UsageError(
            f"{path} holds {len(found)} ..._results.json files, expected the one of a finished run. "
            f"Name a run directory, or the file."
        )
    return found[0]


def _values(reached: _Reached) -> dict[str, float]:
    """What the run earned, by each metric it has."""
    flat = {f"evaluation.{name}": value for name, value in (reached.evaluation or {}).items()}
    flat["final_reward_mean"] = reached.final_reward_mean
    found = {name: flat.get(name) for name in METRICS}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _chosen_metric(runs: Sequence[TrainingRun], metric: str | None) -> str:
    if metric is not None and metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS)
    for name in METRICS if metric is None else (metric,):
        without = [run for run in runs if name not in run.values]
        if not without:
            return name
    raise UsageError(
        f"{without[0].path} has no {metric or 'metric that all runs share'}. Evaluate every run the same way, as with "
        f"--evaluation-episodes."
    )


def _check_runs(members: Sequence[TrainingRun]) -> None:
    """Raise `UsageError` when they are no sample of a method: one run, or one twice."""
    first = members[0]
    [(seed, times)] = Counter(run.seed for run in members).most_common(1)
    if times > 1:
        raise UsageError(
            f"{first.group} on {first.env} has {times} runs of seed {seed}, which are one run. Leave one out, or tell "
            f"them apart with --by."
        )
    if len(members) == 1:
        raise UsageError(
            f"{first.group} on {first.env} has one run ({first.path}), and its episodes are no sample of the method. "
            f"Train it with other seeds, {FEW_RUNS} or more."
        )


def _method(key: tuple[str, str], members: Sequence[TrainingRun], values: Sample) -> MethodDTO:
    env, group = key
    rows = stratified_resamples([values], stream(RESAMPLING_SEED, f"{group} on {env}"))
    interval = stratified_interval(iqm_estimate(rows).value, confidence=CONFIDENCE)
    return MethodDTO(
        group=group,
        env=env,
        runs=len(members),
        seeds=tuple(run.seed for run in members),
        mean=float(values.mean()),
        iqm=iqm(values),
        low=interval.low,
        high=interval.high,
        values=tuple(values.tolist()),
    )


def _pair(env: str, first: str, second: str, samples: Mapping[tuple[str, str], Sample]) -> MethodPairDTO:
    """Two methods; runs are resampled within each."""
    ours, theirs = samples[env, first], samples[env, second]
    rows = stratified_resamples([ours, theirs], stream(RESAMPLING_SEED, f"{first} and {second} on {env}"))
    drawn, others = rows[:, : len(ours)], rows[:, len(ours) :]
    apart = stratified_interval(iqm_estimate(drawn).value - iqm_estimate(others).value, confidence=CONFIDENCE)
    better = stratified_interval(improvement_probability(drawn, others), confidence=CONFIDENCE)
    return MethodPairDTO(
        first=first,
        second=second,
        env=env,
        difference=iqm(ours) - iqm(theirs),
        difference_low=apart.low,
        difference_high=apart.high,
        improvement=float(improvement_probability(ours, theirs)),
        improvement_low=better.low,
        improvement_high=better.high,
    )


def _answer(pair: MethodPairDTO, n_first: int, n_second: int) -> str:
    """What the interval of the difference says; of too few runs, that it says nothing."""
    names = (pair.first, pair.second)
    bounds = f"{pair.difference:+.4g} [{pair.difference_low:.4g}, {pair.difference_high:.4g}]"
    if min(n_first, n_second) < FEW_RUNS:
        return (
            f"On {pair.env} it cannot be told whether {names[0]} or {names[1]} is better: {n_first} and {n_second} "
            f"runs are too few, {FEW_RUNS} each are the least. Their difference is {bounds}."
        )
    if pair.difference_low <= 0 <= pair.difference_high:
        return f"On {pair.env} neither {names[0]} nor {names[1]} is shown to be better: {bounds}."
    better, worse = names if pair.difference > 0 else names[::-1]
    return f"On {pair.env} {better} is better than {worse}: {names[0]} less {names[1]} is {bounds}."


def _doubts(groups: Mapping[tuple[str, str], Sequence[TrainingRun]]) -> tuple[str, ...]:
    doubts = [
        f"{group} on {env} has {len(members)} runs; with fewer than {FEW_RUNS} its interval is too narrow."
        for (env, group), members in groups.items()
        if len(members) < FEW_RUNS
    ]
    for env in dict.fromkeys(env for env, _ in groups):
        steps = sorted({run.timesteps or 0 for key, runs in groups.items() if key[0] == env for run in runs})
        if len(steps) > 1:
            doubts.append(
                f"Runs on {env} were trained for {steps[0]} to {steps[-1]} steps, so more than methods differs."
            )
    return tuple(doubts)
