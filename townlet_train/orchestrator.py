"""One run, from config to result: choose the strategy, prepare, open the run directory, run, write what was reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from townlet_train.config import DEFAULT, RunConfig, config_hash
from townlet_train.contract import (
    AnnealContext,
    Progress,
    StartingPoint,
    StrategyParams,
    TrainingContext,
    TrainingStrategy,
)
from townlet_train.envs.streams import stream
from townlet_train.errors import ConfigError, PluginError, TownletTrainError, UsageError, suggestion
from townlet_train.registry import Registry, RunLoggers, StrategyRecord, discover
from townlet_train.results import TrainingResultDTO
from townlet_train.services import TrainingServices
from townlet_train.services.experiment import close_experiment
from townlet_train.services.resume import (
    Found,
    changed_keys,
    check_budget,
    check_resumable,
    check_same_params,
    continued_config,
    find_checkpoint,
    find_start,
)
from townlet_train.services.runs import (
    RUN,
    Resumed,
    Run,
    check_run_dir,
    default_run_dir,
    open_run,
    recover_run_dir,
)

Report = Callable[[Progress], None]


logger = logging.getLogger(__name__)


class TrainingOrchestrator:
    """Runs any registered strategy on one config; services and registry may be handed in, as tests do."""

    def __init__(
        self,
        config: RunConfig,
        *,
        services: TrainingServices | None = None,
        registry: Registry | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self._given_services = services
        self.registry = registry or discover()
        self.origin = dict(origin or {})

    def available_strategies(self) -> tuple[StrategyRecord, ...]:
        """What can be run here, and what cannot and why."""
        return self.registry.strategies

    def build_strategy(self, name: str, params: Mapping[str, Any]) -> TrainingStrategy:
        """A registered strategy with validated params.

        Raises:
            ConfigError: a param is unknown or has a value it cannot have.
        """
        strategy = self.registry.select(name)
        return strategy(build_params(strategy, params))

    def run_bc(self, *, manifest: Path | None = None, **options: Any) -> TrainingResultDTO:
        """Behaviour cloning of the demonstrations in `manifest`; options as for `run_strategy`."""
        return self.run_strategy("bc", {"manifest": manifest}, **options)

    def run_strategy(
        self,
        name: str,
        params: Mapping[str, Any],
        *,
        run_dir: Path | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
        report: Report = lambda progress: None,
        anneal_context: AnnealContext | None = None,
        resume_from: Path | str | None = None,
        fork: bool = False,
    ) -> TrainingResultDTO:
        """Run one strategy; a dry run stops after `prepare` and writes nothing.

        `resume_from` is a checkpoint to go on from, or "latest": as the same run, in the same directory unless told,
        with the checkpoint's settings wherever none were given; with `fork` as a new run that begins with its policy.

        Raises:
            TorchNotAvailableError, UnknownNameError, PluginError: from the registry, before anything is written.
            UsageError: the run directory is taken, or a setting differs that makes it another run.
            CheckpointError: the checkpoint to go on from is missing, damaged, or of something else.
        """
        plan = self._plan(name, params, run_dir, resume_from, fork=fork)
        strategy = self.build_strategy(name, plan.params)
        details = plan.describe(strategy, self.origin)
        context = TrainingContext(
            config=plan.config,
            services=self._given_services
            or TrainingServices.from_config(plan.config, experts=self.registry.experts),
            config_hash=details["config_hash"],
            seed=plan.config.seed,
            rng=stream(plan.config.seed, "training"),
            run_dir=plan.run_dir,
            report=report,
            record=lambda line: None,
            build_strategy=self.build_strategy,
            anneal_context=anneal_context,
            start=plan.start,
        )
        resumed = plan.resumed
        check_run_dir(plan.run_dir, overwrite=overwrite, resumed=resumed)
        strategy.prepare(context)
        if dry_run:
            return TrainingResultDTO(strategy=name, warnings=plan.warnings)
        with open_run(
            plan.run_dir,
            strategy=name,
            seed=plan.config.seed,
            details=details,
            overwrite=overwrite,
            resumed=resumed,
        ) as run:
            started = time.perf_counter()
            recorded = resumed.recorded if resumed is not None and resumed.path is not None else None
            loggers = RunLoggers(self.registry.loggers, run.path, recorded)
            record = partial(_record, run, loggers)
            with closing(loggers):
                result = self._run_guarded(name, strategy, replace(context, record=record))
            if result.duration_sec is None:
                result = result.model_copy(update={"duration_sec": time.perf_counter() - started})
            warnings = (*plan.warnings, *run.warnings, *loggers.warnings, *result.warnings)
            return close_experiment(run, result.model_copy(update={"warnings": warnings}))

    def _plan(
        self,
        name: str,
        params: Mapping[str, Any],
        run_dir: Path | None,
        resume_from: Path | str | None,
        *,
        fork: bool,
    ) -> _Plan:
        """What to run, where, and with which settings: those given, above a checkpoint's when there is one."""
        path = run_dir or default_run_dir(name, self.config.seed)
        recover_run_dir(path)
        if resume_from is None:
            if fork:
                raise UsageError("--fork begins with a checkpoint's policy. Name it with --resume-from.")
            return _Plan(self.config, params, path)
        strategy = self.registry.find(name)
        may_change = strategy.Params.may_change_on_resume
        if may_change is None:
            raise UsageError(f"Runs of {name} cannot be resumed.")
        if fork:
            found = find_checkpoint(str(resume_from), path)
            saved = found.state.get("params", {}) if found.algorithm == name else {}
            return _Plan(self.config, {**saved, **params}, path, _starting_point(found, fork), found.warnings)
        found = find_start(str(resume_from), path)
        check_resumable(found, name)
        given = dict(changed_keys(self.config, self.origin, DEFAULT))
        config, warnings = continued_config(found, given)
        together = {**found.state["params"], **params}
        check_budget(found, together)
        check_same_params(found, build_params(strategy, together).model_dump(mode="json"), may_change)
        run_dir = run_dir or (found.path.parent if (found.path.parent / RUN).exists() else path)
        start, warnings = _starting_point(found, found.forked), (*found.warnings, *warnings)
        return _Plan(config, together, path if found.again else run_dir, start, warnings, found.resumed)

    def _run_guarded(
        self, name: str, strategy: TrainingStrategy, context: TrainingContext
    ) -> TrainingResultDTO:
        """Run a strategy; what a plugin does wrong is told with the plugin's name."""
        record = next(record for record in self.registry.strategies if record.name == name)
        whose = f"Strategy {name!r} of {record.distribution} {record.version}"
        try:
            result = strategy.run(context)
        except (TownletTrainError, OSError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            logger.debug("%s failed", whose, exc_info=True)
            sentence = f"{whose} failed with {type(error).__name__}: {str(error).rstrip('.')}."
            raise PluginError(f"{sentence} Its traceback is in {context.run_dir / 'logs'}.") from error
        if not isinstance(result, TrainingResultDTO):
            raise PluginError(f"{whose} returned {type(result).__name__}, expected a TrainingResultDTO.")
        return result


def _record(run: Run, loggers: RunLoggers, line: Mapping[str, Any]) -> None:
    """Put a line on disk, and hand it to the loggers as it is there."""
    loggers.record(run.record(line))


class _Plan(NamedTuple):
    """What to run, where, with which settings, and from where."""

    config: RunConfig
    params: Mapping[str, Any]
    run_dir: Path
    start: StartingPoint | None = None
    warnings: tuple[str, ...] = ()
    resumed: Resumed | None = None  # the same run goes on

    def describe(self, strategy: TrainingStrategy, origin: Mapping[str, str]) -> dict[str, Any]:
        """What run.json says about where a run comes from."""
        resolved = build_params(type(strategy), self.params).model_dump(mode="json")
        return {
            "config": self.config.model_dump(mode="json"),
            "params": resolved,
            "config_hash": config_hash(self.config, {strategy.name: resolved}),
            "origin": dict(origin),
            "start": None if self.start is None else self.start.describe(),
        }


def _starting_point(found: Found, fork: bool) -> StartingPoint | None:
    """The checkpoint that was found, to begin with; None where a run begins again from nothing."""
    if found.checkpoint is None:
        return None
    return StartingPoint(found.path, found.sha256, found.checkpoint, fork)


PolicyTrainingOrchestrator = TrainingOrchestrator


def build_params(strategy: type[TrainingStrategy], params: Mapping[str, Any]) -> StrategyParams:
    """A strategy's params from plain values; `ConfigError` names the first that is wrong."""
    try:
        return strategy.Params.model_validate(dict(params))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = suggestion(key, strategy.Params.model_fields) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{strategy.name}.{key} is {first['input']!r}: {first['msg']}.{hint}") from error


def run_strategy(
    name: str,
    params: Mapping[str, Any],
    *,
    config: RunConfig,
    origin: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> TrainingResultDTO:
    """What the generated command calls: one run of one strategy."""
    return TrainingOrchestrator(config, registry=registry, origin=origin).run_strategy(
        name, params, **options
    )
