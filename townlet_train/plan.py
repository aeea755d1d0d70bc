"""What a run is before it begins: with which settings, where, and from which checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from townlet_train.config import DEFAULT, RunConfig, config_hash
from townlet_train.contract import StartingPoint, StrategyParams, TrainingStrategy, validated_params
from townlet_train.errors import TownletTrainError, UsageError
from townlet_train.services.replay import ReplayDatasetService
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

    A new run in no environment that was named is in that of the recording which its param `manifest` names.

    Raises:
        UsageError: a setting differs that makes it another run, or there is nothing left to do.
        CheckpointError: the checkpoint to go on from is missing, damaged, or of something else.
    """
    path = run_dir or _own_dir(resume_from, fork) or default_run_dir(strategy.name, config.seed)
    recover_run_dir(path)
    if resume_from is None or fork:
        config, origin = _in_recorded_env(config, origin, params.get("manifest"))
    if resume_from is None:
        if fork:
            raise UsageError("--fork begins with a checkpoint's policy. Name it with --resume-from.")
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
        start = _starting_point(found, fork)
        return Plan(config, {**saved, **params}, path, start, found.warnings, origin=origin)
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


def _in_recorded_env(
    config: RunConfig, origin: Mapping[str, str], manifest: object
) -> tuple[RunConfig, Mapping[str, str]]:
    """The config in the environment of a recording, where none was named; where it is none, others will say so."""
    if not isinstance(manifest, str | Path) or "env" in dict(changed_keys(config, origin, DEFAULT)):
        return config, origin
    with suppress(TownletTrainError):
        env = ReplayDatasetService().env_id(Path(manifest))
        if env is not None and env != config.env:
            return config.model_copy(update={"env": env}), {**origin, "env": str(manifest)}
    return config, origin


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
