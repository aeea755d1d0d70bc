"""One run, from config to result: choose the strategy, prepare, open the run directory, run, write what was reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from townlet_train.config import RunConfig
from townlet_train.contract import (
    AnnealContext,
    Progress,
    TrainingContext,
    TrainingStrategy,
)
from townlet_train.envs.streams import stream
from townlet_train.errors import PluginError, TownletTrainError
from townlet_train.plan import build_params, plan_run
from townlet_train.registry import Registry, RunLoggers, StrategyRecord, discover
from townlet_train.results import RolloutCaptureDTO, TrainingResultDTO
from townlet_train.services import TrainingServices
from townlet_train.services.experiment import close_experiment
from townlet_train.services.runs import (
    Run,
    check_run_dir,
    open_run,
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
        self._given_services = services
        self.registry = registry or discover()
        self.config = self.registry.listing.with_env(config)
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
        """Behaviour cloning of the demonstrations in `manifest`; options as for `run`."""
        return self.run("bc", {"manifest": manifest}, **options)

    def run_ppo(self, params: Mapping[str, Any] | None = None, **options: Any) -> TrainingResultDTO:
        """PPO; options as for `run`, among them the `anneal_context` it is measured against."""
        return self.run("ppo", params or {}, **options)

    def run_anneal(self, params: Mapping[str, Any] | None = None, **options: Any) -> TrainingResultDTO:
        """From a clone to the best policy within the guardrails; options as for `run`."""
        return self.run("anneal", params or {}, **options)

    def capture_rollout(self, output: Path, *, policy: str = "expert", **options: Any) -> RolloutCaptureDTO:
        """Capture a scripted policy as the config says; options as for `capture_as_configured`."""
        from townlet_train.services.rollout import capture_as_configured

        return capture_as_configured(
            self.config, output=output, policy=policy, experts=self.registry.experts, **options
        )

    def run_replay_dataset(
        self, path: Path, *, batch_size: int = 1, **options: Any
    ) -> list[dict[str, float]]:
        """A summary of every batch of a recording; options as for `ReplayDatasetService.build_dataset`."""
        replay = self._services(self.config).replay
        return replay.summarize_dataset(replay.build_dataset(path, batch_size=batch_size, **options))

    def run(
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
        chosen = self.registry.find(name)
        plan = plan_run(self.config, self.origin, chosen, params, run_dir, resume_from, fork=fork)
        plan = plan._replace(config=self.registry.listing.with_env(plan.config))
        with self._named(name):
            strategy = self.build_strategy(name, plan.params)
        details = plan.describe(strategy)
        context = TrainingContext(
            config=plan.config,
            services=self._services(plan.config).with_promotion(_promotion_dir(plan.params)),
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
        check_run_dir(plan.run_dir, overwrite=overwrite, resumed=resumed, config_hash=details["config_hash"])
        handed = replace(context)
        with self._named(name):
            strategy.prepare(handed)
        warnings = (*plan.warnings, *self._forced(name, context, handed))
        if dry_run:
            logger.info("The run could start, and would write to %s", plan.run_dir)
            return TrainingResultDTO(strategy=chosen.name, warnings=warnings)
        with open_run(
            plan.run_dir,
            strategy=chosen.name,
            seed=plan.config.seed,
            details=details,
            overwrite=overwrite,
            resumed=resumed,
        ) as run:
            started = time.perf_counter()
            recorded = resumed.recorded if resumed is not None and resumed.path is not None else None
            loggers = RunLoggers(self.registry.loggers, run.path, recorded)
            record = partial(_record, run, loggers)
            with closing(loggers), closing(context.services.processes):
                result = self._run_guarded(name, strategy, replace(context, record=record))
                loggers.finish(result)
            if result.duration_sec is None:
                result = result.model_copy(update={"duration_sec": time.perf_counter() - started})
            warnings = (*warnings, *run.warnings, *loggers.warnings, *result.warnings)
            return close_experiment(run, result.model_copy(update={"warnings": warnings}))

    def _services(self, config: RunConfig) -> TrainingServices:
        return self._given_services or TrainingServices.from_config(
            config, self.registry.experts, self.registry.gate_checks(config.gate.checks)
        )

    def _run_guarded(
        self, name: str, strategy: TrainingStrategy, context: TrainingContext
    ) -> TrainingResultDTO:
        """Run a strategy; what a plugin does wrong is told with the plugin's name."""
        with self._named(name, f"Its traceback is in {context.run_dir / 'logs'}."):
            handed = replace(context)
            result = strategy.run(handed)
        if not isinstance(result, TrainingResultDTO):
            kind = type(result).__name__
            raise PluginError(f"{self._whose(name)} returned {kind}, expected a TrainingResultDTO.")
        if result.strategy != strategy.name:
            raise PluginError(
                f"{self._whose(name)} returned a result of {result.strategy!r}, expected a TrainingResultDTO of "
                f"{strategy.name!r}: pass strategy=self.name."
            )
        warnings = (*result.warnings, *self._forced(name, context, handed))
        return result.model_copy(update={"warnings": warnings})

    @contextmanager
    def _named(self, name: str, hint: str = "--debug shows its traceback.") -> Iterator[None]:
        """Say whose strategy raised what is no error of ours, or was at work when the user interrupted."""
        try:
            yield
        except KeyboardInterrupt as stop:
            stop.add_note(f"{self._whose(name)} was at work.")
            raise
        except (TownletTrainError, OSError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            whose = self._whose(name)
            logger.debug("%s failed", whose, exc_info=True)
            message = str(error).rstrip(".")
            raise PluginError(f"{whose} failed with {type(error).__name__}: {message}. {hint}") from error

    def _forced(self, name: str, context: TrainingContext, handed: TrainingContext) -> tuple[str, ...]:
        """A warning where a strategy forced the context it was handed, a copy of ours, to say something else."""
        names = [field.name for field in fields(context)]
        changed = [each for each in names if getattr(handed, each, None) is not getattr(context, each)]
        whose = f"{self._whose(name)} changed its context ({', '.join(changed)})"
        return (f"{whose}; the run goes by what was there before.",) if changed else ()

    def _whose(self, name: str) -> str:
        record = self.registry.record(name)
        return f"Strategy {record.name!r} of {record.distribution} {record.version}"


def _promotion_dir(params: Mapping[str, Any]) -> Path | None:
    """Where a strategy was told that releases are, by the param of that name."""
    return None if params.get("promotion_dir") is None else Path(params["promotion_dir"])


def _record(run: Run, loggers: RunLoggers, line: Mapping[str, Any]) -> None:
    """Put a line on disk, and hand it to the loggers as it is there."""
    loggers.record(run.record(line))


PolicyTrainingOrchestrator = TrainingOrchestrator


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
    return TrainingOrchestrator(config, registry=registry, origin=origin).run(name, params, **options)
