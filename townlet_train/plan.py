"""What a run is before it begins: with which settings, where, and from which checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from townlet_train.config import DEFAULT, RunConfig, config_hash
from townlet_train.contract import StartingPoint, StrategyParams, TrainingStrategy, validated_params
from townlet_train.errors import UsageError
from townlet_train.services.environment import in_env_of
from townlet_train.services.resume import (
    LATEST,
    Found,
    changed_keys,
    check_budget,
    check_resumable,
    check_same_params,
    continued_config,
    find_checkpoint,
    find_start,
)
from townlet_train.services.runs import Resumed, default_run_dir, holds_run, recover_run_dir


class Plan(NamedTuple):
    """What to run, where, with which settings, and from where."""

    config: RunConfig
    params: Mapping[str, Any]
    run_dir: Path
    start: StartingPoint | None = None
    warnings: tuple[str, ...] = ()
    resumed: Resumed | None = None  # the same run goes on
    origin: Mapping[str, str] = MappingProxyType({})  # where the settings of `config` come from

    def describe(self, strategy: TrainingStrategy) -> dict[str, Any]:
        """What run.json says about where a run comes from."""
        resolved = build_params(type(strategy), self.params).model_dump(mode="json")
        return {
            "config": self.config.model_dump(mode="json"),
            "params": resolved,
            "config_hash": config_hash(self.config, {strategy.name: resolved}),
            "origin": dict(self.origin),
            "start": None if self.start is None else self.start.describe(),
        }


def plan_run(
    config: RunConfig,
    origin: Mapping[str, str],
    strategy: type[TrainingStrategy],
    params: Mapping[str, Any],
    run_dir: Path | None,
    resume_from: Path | str | None,
    *,
    fork: bool,
) -> Plan:
    """What to run, where, and with which settings: those given, above a checkpoint's when there is one.

    A new run in no environment that was named is in that of the first file which params that say one name, or of the
    checkpoint it is forked from.

    Raises:
        UsageError: a setting differs that makes it another run, or there is nothing left to do.
        CheckpointError: the checkpoint to go on from is missing, damaged, or of something else.
    """
    path = run_dir or _own_dir(resume_from, fork) or default_run_dir(strategy.name, config.seed)
    recover_run_dir(path)
    if resume_from is None:
        if fork:
            raise UsageError("--fork begins with a checkpoint's policy. Name it with --resume-from.")
        config, origin = in_env_of(config, origin, _files_with_env(strategy, params))
        return Plan(config, params, path, origin=origin)
    may_change = strategy.Params.may_change_on_resume
    if may_change is None:
        raise UsageError(
            f"Runs of {strategy.name} cannot be resumed. Leave --resume-from out and begin anew, with --overwrite "
            f"or another --output-dir."
        )
    if fork:
        found = find_checkpoint(str(resume_from), path)
        saved = found.state.get("params", {}) if found.algorithm == strategy.name else {}
        start, together = _starting_point(found, fork), {**saved, **params}
        config, origin = in_env_of(config, origin, [*_files_with_env(strategy, together), found.path])
        return Plan(config, together, path, start, found.warnings, origin=origin)
    found = find_start(str(resume_from), path)
    check_resumable(found, strategy.name)
    given = dict(changed_keys(config, origin, DEFAULT))
    continued, warnings = continued_config(found, given)
    together = {**found.state["params"], **params}
    if "timesteps" in may_change:
        check_budget(found, together)
    check_same_params(found, build_params(strategy, together).model_dump(mode="json"), may_change)
    start, warnings = _starting_point(found, found.forked), (*found.warnings, *warnings)
    return Plan(continued, together, path, start, warnings, found.resumed(may_change), origin)


def _files_with_env(strategy: type[TrainingStrategy], params: Mapping[str, Any]) -> list[Path]:
    """The files named by those params of a strategy whose files say an environment."""
    named = (params.get(name) for name in strategy.Params.say_env)
    return [Path(path) for path in named if isinstance(path, str | Path)]


def _own_dir(resume_from: Path | str | None, fork: bool) -> Path | None:
    """The directory of the run whose checkpoint is named, where the run goes on unless told otherwise."""
    if resume_from is None or fork or str(resume_from) == LATEST:
        return None
    parent = Path(resume_from).parent
    return parent if holds_run(parent) else None


def build_params(strategy: type[TrainingStrategy], params: Mapping[str, Any]) -> StrategyParams:
    """A strategy's params from plain values; `ConfigError` names the first that is wrong."""
    return validated_params(strategy.Params, params, strategy.name)


def _starting_point(found: Found, fork: bool) -> StartingPoint | None:
    """The checkpoint that was found, to begin with; None where a run begins again from nothing."""
    if found.checkpoint is None:
        return None
    return StartingPoint(found.path, found.sha256, found.checkpoint, fork)
