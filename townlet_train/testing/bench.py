"""Where a strategy is tried: real runs of it, in folders of their own, watched from outside."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from townlet_train.config import RunConfig
from townlet_train.contract import Progress, TrainingContext, TrainingStrategy
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.envs.gymnasium import GymnasiumVectorEnv
from townlet_train.envs.protocol import Step, VectorEnv
from townlet_train.envs.town import TownVectorEnv
from townlet_train.errors import Interrupted, PluginError, TorchNotAvailableError, TownletTrainError
from townlet_train.orchestrator import TrainingOrchestrator
from townlet_train.plan import build_params
from townlet_train.policies.experts import find_expert
from townlet_train.registry import PluginPolicy, Registry, StrategyRecord, discover
from townlet_train.results import TrainingResultDTO

SMALL: Mapping[str, Any] = {  # params of these names, where they are not given
    "timesteps": 512,
    "n_envs": 2,
    "n_steps": 32,
    "batch_size": 32,
    "n_epochs": 2,
    "n_iterations": 4,
    "evaluation_episodes": 2,
}
RECORDING = {"towns": 10, "ticks": 64}
# Names of what no two runs have in common: times, and hashes of files that say where they lie.
THEIR_OWN = re.compile(r"(^|_)(sec|seconds|ms|time|timestamp|sha256)$")

Report = Callable[[Progress], None]


class BrokenRule(Exception):
    """The strategy breaks a rule; says how, and what it should do."""


class Unchecked(Exception):
    """A rule could not be tried; says why."""


@dataclass(frozen=True)
class Trial:
    """One run that came to its end: what it returned, reported and recorded."""

    folder: Path
    result: TrainingResultDTO
    reports: tuple[Progress, ...]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl without times and places."""
        path = self.folder / "run/metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [_timeless(json.loads(line), self.folder) for line in text.split("\n") if line]

    @property
    def weights(self) -> str:
        """A hash of what the policy computes with, or an empty string where none is left."""
        if self.result.checkpoint is None:
            return ""
        digest = hashlib.sha256()
        for name, array in sorted(load_checkpoint(Path(self.result.checkpoint)).weights.items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def found(self) -> dict[str, Any]:
        """The result without times and places."""
        found: dict[str, Any] = _timeless(self.result.model_dump(mode="json"), self.folder)
        return found


@dataclass
class Bench:
    """A strategy and what to try it with; `run` is a real run, its dry form stops after `prepare`."""

    strategy: type[TrainingStrategy]
    config: RunConfig
    given: Mapping[str, Any]
    folder: Path
    registry: Registry | None = None
    report: Report = lambda progress: None
    silent: list[str] = field(default_factory=list, init=False)  # long work that ran without a report
    silent_ticks: int = field(default=0, init=False)  # most ticks of environments between two reports
    _whole: Trial | Unchecked | BrokenRule | None = field(default=None, init=False)
    _params: Mapping[str, Any] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        found = self.registry or discover(PluginPolicy.from_environment(os.environ))
        name, requires_torch = self.strategy.name, self.strategy.requires_torch
        module = self.strategy.__module__.partition(".")[0]
        own = StrategyRecord(name, self.strategy.summary, requires_torch, True, "", module, "under check")
        strategies = (own, *(record for record in found.strategies if record.name != name))
        self.registry = replace(
            found,
            listing=replace(found.listing, strategies=strategies),
            classes={**found.classes, name: self.strategy},
            loggers=(),
        )

    @property
    def params(self) -> Mapping[str, Any]:
        """Params to run with: those given, small ones, and a recording where one can be named.

        Raises:
            Unchecked: some have no default and are not given.
        """
        if self._params is None:
            self._params = self._completed()
        return self._params

    @property
    def paths(self) -> frozenset[str]:
        """The params that are paths."""
        fields = self.strategy.Params.model_fields.items()
        return frozenset(
            name for name, field in fields if Path in (field.annotation, *get_args(field.annotation))
        )

    def whole(self) -> Trial:
        """The run that others are compared with, made once.

        Raises:
            Unchecked: it cannot be run as it is asked to be.
            BrokenRule: it raised what it should not.
        """
        if self._whole is None:
            try:
                self._whole = self.run("whole")
            except (Unchecked, BrokenRule) as reason:
                self._whole = reason
        if isinstance(self._whole, BrokenRule):
            raise Unchecked("It does not come to its end; the rule 'run' says how.")
        if isinstance(self._whole, Unchecked):
            raise self._whole
        return self._whole

    def failure(self) -> BrokenRule | None:
        """How the run that others are compared with failed, None where it did not."""
        try:
            self.whole()
        except Unchecked:
            if isinstance(self._whole, BrokenRule):
                return self._whole
            raise
        return None

    def run(self, name: str, *, report: Report | None = None, noise: int = 0, **options: Any) -> Trial:
        """A run in a folder of that name, global random generators being at some `noise`.

        Raises:
            Interrupted: `report` did, or the user.
            Unchecked: `prepare` refuses these params or this environment.
            BrokenRule: something else was raised.
        """
        reports: list[Progress] = []
        ticks = 0

        def count() -> None:
            nonlocal ticks
            ticks += 1
            self.silent_ticks = max(self.silent_ticks, ticks)

        def hear(progress: Progress) -> None:
            nonlocal ticks
            ticks = 0
            reports.append(progress)
            self.report(progress)
            if report is not None:
                report(progress)

        self.prepare(name, noise=noise, **options)
        try:
            watched = watching_services(self.strategy, self.silent)
            with counting_ticks(count):
                result = self.attempt(name, report=hear, noise=noise, strategy=watched, **options)
        except Interrupted:
            raise
        except (TownletTrainError, OSError) as error:
            raise BrokenRule(told(error, "`run`")) from error
        return Trial(self.folder / name, result, tuple(reports))

    def prepare(self, name: str, **options: Any) -> None:
        """A dry run.

        Raises:
            Unchecked: `prepare` refuses these params or this environment, or torch is missing.
            BrokenRule: it raised what is no error of ours.
        """
        try:
            self.attempt(name, dry_run=True, **options)
        except (PluginError, OSError) as error:
            raise BrokenRule(f"{told(error, '`prepare`')} Raise an error of townlet_train.api.") from error
        except TorchNotAvailableError as error:
            raise Unchecked(str(error)) from error
        except TownletTrainError as error:
            raise Unchecked(
                f"`prepare` refused: {error} Hand the check params or a config that fit."
            ) from error

    def attempt(
        self,
        name: str,
        *,
        params: Mapping[str, Any] | None = None,
        config: RunConfig | None = None,
        strategy: type[TrainingStrategy] | None = None,
        noise: int = 0,
        **options: Any,
    ) -> TrainingResultDTO:
        """The orchestrator's run of the strategy in a folder of that name; whatever it raises, passes."""
        assert self.registry is not None
        registry = self.registry
        if strategy is not None:
            registry = replace(registry, classes={**registry.classes, strategy.name: strategy})
        chosen = self.params if params is None else params
        (self.folder / name).mkdir(exist_ok=True)
        with chdir(self.folder / name), global_generators(noise):
            return TrainingOrchestrator(config or self.config, registry=registry).run(
                self.strategy.name, chosen, run_dir=self.folder / name / "run", **options
            )

    def _completed(self) -> Mapping[str, Any]:
        fields = self.strategy.Params.model_fields
        small = {name: value for name, value in SMALL.items() if name in fields}
        if "manifest" in fields and self.given.get("manifest") is None:
            small["manifest"] = self._recording()
        given = {
            name: Path(value).absolute() if name in self.paths and value is not None else value
            for name, value in self.given.items()
        }
        missing = [name for name, field in fields.items() if field.is_required()]
        missing = [name for name in missing if name not in small.keys() | given.keys()]
        if missing:
            raise Unchecked(f"It needs {', '.join(missing)}. Hand the check params with them.")
        try:
            self.strategy.Params.model_validate({**small, **given})
        except ValidationError:
            small = {name: value for name, value in small.items() if name == "manifest"}
        together = {**small, **given}
        build_params(self.strategy, together)
        return together

    def _recording(self) -> Path:
        """A small recording of the environment, of its expert where there is one."""
        assert self.registry is not None
        rollout = self.config.rollout.model_copy(update=RECORDING)
        config = self.config.model_copy(update={"rollout": rollout})
        policy = "expert" if find_expert(self.config.env, self.registry.experts) else "random"
        target = self.folder / "demonstrations"
        try:
            TrainingOrchestrator(config, registry=self.registry).capture_rollout(target, policy=policy)
        except TownletTrainError as error:
            raise Unchecked(f"{self.config.env} could not be recorded for it: {error}") from error
        return target


def watching_prepare(
    strategy: type[TrainingStrategy],
    before: Callable[[TrainingContext], None],
    after: Callable[[TrainingContext], None],
) -> type[TrainingStrategy]:
    """The same strategy, its `prepare` between two looks at the context."""

    def prepare(self: Any, context: TrainingContext) -> None:
        before(context)
        strategy.prepare(self, context)
        after(context)

    watched: type[TrainingStrategy] = type(strategy.__name__, (strategy,), {"prepare": prepare})
    return watched


def watching_services(strategy: type[TrainingStrategy], silent: list[str]) -> type[TrainingStrategy]:
    """The same strategy; `silent` is told by name what it has its services do without a report."""

    def run(self: Any, context: TrainingContext) -> TrainingResultDTO:
        long: dict[str, Any] = {
            name: _Watched(name, getattr(context.services, name), silent)
            for name in ("rollout", "evaluation")
        }
        return strategy.run(self, replace(context, services=replace(context.services, **long)))

    watched: type[TrainingStrategy] = type(strategy.__name__, (strategy,), {"run": run})
    return watched


class _Watched:
    """A service that notes what was called without the report that it takes."""

    def __init__(self, name: str, service: object, silent: list[str]) -> None:
        self._name, self._service, self._silent = name, service, silent

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)
        if "report" in inspect.signature(method).parameters:
            return partial(self._call, name, method)
        return method

    def _call(self, name: str, method: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        if named.get("report") is None:
            self._silent.append(f"services.{self._name}.{name}")
        return method(*given, **named)


@contextmanager
def counting_ticks(count: Callable[[], None]) -> Iterator[None]:
    """Call `count` whenever a set of environments is stepped in this process, whoever built it."""
    whole = {kind: kind.step for kind in (GymnasiumVectorEnv, TownVectorEnv)}

    def counted(step: Callable[..., Step]) -> Callable[..., Step]:
        def counting(self: VectorEnv, actions: NDArray[Any]) -> Step:
            count()
            return step(self, actions)

        return counting

    for kind, step in whole.items():
        setattr(kind, "step", counted(step))  # noqa: B010 - a method may not be assigned to, says mypy
    try:
        yield
    finally:
        for kind, step in whole.items():
            setattr(kind, "step", step)  # noqa: B010 - likewise


@contextmanager
def global_generators(noise: int) -> Iterator[None]:
    """Python's, NumPy's and torch's own generators at some state, and back at theirs afterwards."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 - they are what must not matter
    torch = sys.modules.get("torch")
    torchs = None if torch is None else torch.get_rng_state()
    random.seed(noise)
    np.random.seed(noise)  # noqa: NPY002 - likewise
    if torch is not None:
        torch.manual_seed(noise)
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002 - likewise
        if torch is not None:
            torch.set_rng_state(torchs)


def told(error: TownletTrainError | OSError, what: str) -> str:
    """What a method raised and where, or the sentence it ended with; its logs are thrown away with their folder."""
    cause = error.__cause__
    if not isinstance(error, PluginError) or cause is None:
        return f"{what} ends with {type(error).__name__}: {str(error).rstrip('.')}."
    where = traceback.extract_tb(cause.__traceback__)[-1]
    place = f"{Path(where.filename).name}, line {where.lineno}"
    return f"{what} raises {type(cause).__name__}: {cause} ({place})."


def _timeless(value: Any, folder: Path) -> Any:
    """A document without what every run has its own of, and with the folder's name as a dot."""
    if isinstance(value, dict):
        return {name: _timeless(item, folder) for name, item in value.items() if not THEIR_OWN.search(name)}
    if isinstance(value, list | tuple):
        return [_timeless(item, folder) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value.replace(str(folder), ".") if isinstance(value, str) else value
