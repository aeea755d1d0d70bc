"""One run, from config to result: choose the strategy, prepare, open the run directory, run, write what was reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from townlet_train.config import RunConfig, config_hash
from townlet_train.contract import AnnealContext, Progress, StrategyParams, TrainingContext, TrainingStrategy
from townlet_train.envs.streams import stream
from townlet_train.errors import ConfigError, PluginError, TownletTrainError, suggestion
from townlet_train.registry import Registry, StrategyRecord, discover
from townlet_train.results import TrainingResultDTO
from townlet_train.services import TrainingServices
from townlet_train.services.experiment import close_experiment
from townlet_train.services.runs import check_run_dir, default_run_dir, open_run

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
        self.services = services or TrainingServices.from_config(config)
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
    ) -> TrainingResultDTO:
        """Run one strategy; a dry run stops after `prepare` and writes nothing.

        Raises:
            TorchNotAvailableError, UnknownNameError, PluginError: from the registry, before anything is written.
            UsageError: the run directory is taken.
        """
        strategy = self.build_strategy(name, params)
        details = self._describe(name, params)
        path = run_dir or default_run_dir(name, self.config.seed)
        context = TrainingContext(
            config=self.config,
            services=self.services,
            config_hash=details["config_hash"],
            seed=self.config.seed,
            rng=stream(self.config.seed, "training"),
            run_dir=path,
            report=report,
            record=lambda line: None,
            build_strategy=self.build_strategy,
            anneal_context=anneal_context,
        )
        check_run_dir(path, overwrite=overwrite)
        strategy.prepare(context)
        if dry_run:
            return TrainingResultDTO(strategy=name)
        with open_run(
            path, strategy=name, seed=self.config.seed, details=details, overwrite=overwrite
        ) as run:
            started = time.perf_counter()
            result = self._run_guarded(name, strategy, replace(context, record=run.record))
            if result.duration_sec is None:
                result = result.model_copy(update={"duration_sec": time.perf_counter() - started})
            return close_experiment(run, result)

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

    def _describe(self, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """What run.json says about where a run comes from."""
        strategy = self.registry.find(name)
        resolved = build_params(strategy, params).model_dump(mode="json")
        return {
            "config": self.config.model_dump(mode="json"),
            "params": resolved,
            "config_hash": config_hash(self.config, {name: resolved}),
            "origin": self.origin,
        }


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
