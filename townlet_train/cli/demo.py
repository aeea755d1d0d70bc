"""`townlet-train demo`: from nothing to a clone of the expert and past it, and the commands that go there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit, reporting
from townlet_train.cli.session import load_settings, session_registry
from townlet_train.errors import PluginError

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.contract import Progress
    from townlet_train.registry import Registry
    from townlet_train.results import BCTrainingResultDTO, DemoDTO, DemoStepDTO, EvaluationDTO

IMPROVE = "town-improve"  # the preset
Result = TypeVar("Result")


def command(
    context: typer.Context,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", help="Directory to leave everything in.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the demonstrations and of the training.")] = 1,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Capture the expert, clone it, improve on the clone, and compare them in towns nobody trained on."""
    registry = session_registry(context)
    for strategy in ("bc", "ppo"):
        registry.select(strategy)
    settings = load_settings(context, preset=IMPROVE, named={"seed": seed, "rollout.store": "memmap"})
    with reporting() as report:
        demo = Demo(settings.config, output_dir, overwrite=overwrite, report=report)
        result = demo.run(registry, settings.section("ppo"))
    return emit(result, json_output=json_output)


class Demo:
    """Capture, clone, improve, each step timed beside the command a user would type for it."""

    def __init__(
        self, config: RunConfig, output: Path, *, overwrite: bool, report: Callable[[Progress], None]
    ) -> None:
        self.config = config
        self.demonstrations, self.run_dir = output / "demonstrations", output / "run"
        self.improved_dir = output / "improved"
        self.overwrite = overwrite
        self.report = report
        self.steps: list[DemoStepDTO] = []

    def run(self, registry: Registry, ppo: Mapping[str, object]) -> DemoDTO:
        """Do it all; `ppo` holds the params of the improvement."""
        from townlet_train.results import DemoDTO
        from townlet_train.services.runs import check_run_dir
        from townlet_train.services.scoring import with_policy

        for run_dir in (self.run_dir, self.improved_dir):
            check_run_dir(run_dir, overwrite=self.overwrite)
        seed = self.config.seed
        frames = self._step(
            f"rollout capture --output {quote(str(self.demonstrations))} --seed {seed} --store memmap --no-maps",
            self._capture,
        )
        clone = self._step(
            f"bc --manifest {quote(str(self.demonstrations))} --seed {seed} --output-dir {quote(str(self.run_dir))}",
            lambda: self._clone(registry),
        )
        improved = self._step(
            f"ppo --preset {IMPROVE} --resume-from {quote(str(clone.checkpoint))} --fork --seed {seed} "
            f"--output-dir {quote(str(self.improved_dir))}",
            lambda: self._improve(registry, ppo, Path(str(clone.checkpoint))),
        )
        return DemoDTO(
            run_dir=str(self.run_dir),
            checkpoint=str(clone.checkpoint),
            checkpoint_sha256=str(clone.checkpoint_sha256),
            frames=frames,
            val_accuracy=clone.val_accuracy,
            val_accuracy_unforced=clone.val_accuracy_unforced,
            majority_share=clone.majority_share,
            first_seed=self.config.evaluation.seed,
            episodes=self.config.evaluation.episodes,
            policies=with_policy(clone.policies, "ppo from the clone", improved),
            steps=tuple(self.steps),
            warnings=clone.warnings,
        )

    def _capture(self) -> int:
        """Capture the expert; returns the frames."""
        from townlet_train.contract import Progress
        from townlet_train.services.rollout import capture_as_configured

        captured = capture_as_configured(
            self.config,
            output=self.demonstrations,
            with_maps=False,
            overwrite=self.overwrite,
            report=lambda done, total: self.report(Progress("capture", done, total, {})),
        )
        return captured.frames

    def _clone(self, registry: Registry) -> BCTrainingResultDTO:
        """Clone the expert; `PluginError` when the strategy called bc is none that leaves a clone."""
        from townlet_train.orchestrator import run_strategy
        from townlet_train.results import BCTrainingResultDTO

        result = run_strategy(
            "bc",
            {"manifest": self.demonstrations},
            config=self.config,
            registry=registry,
            run_dir=self.run_dir,
            overwrite=self.overwrite,
            report=self.report,
        )
        if not isinstance(result, BCTrainingResultDTO) or result.checkpoint is None:
            raise PluginError(
                f"The demo needs a strategy 'bc' that returns a BCTrainingResultDTO with a checkpoint, the registered "
                f"one returned a {type(result).__name__}. Keep its plugin out with TOWNLET_TRAIN_DISABLE_PLUGINS."
            )
        return result

    def _improve(self, registry: Registry, ppo: Mapping[str, object], clone: Path) -> EvaluationDTO:
        """Learn on from the clone; what the policy then earns."""
        from townlet_train.orchestrator import run_strategy
        from townlet_train.results import PPOTrainingResultDTO

        result = run_strategy(
            "ppo",
            ppo,
            config=self.config,
            registry=registry,
            run_dir=self.improved_dir,
            overwrite=self.overwrite,
            report=self.report,
            resume_from=clone,
            fork=True,
        )
        if not isinstance(result, PPOTrainingResultDTO) or result.evaluation is None:
            raise PluginError(
                f"The demo needs a strategy 'ppo' that returns a PPOTrainingResultDTO with an evaluation, the "
                f"registered one returned a {type(result).__name__}. "
                f"Keep its plugin out with TOWNLET_TRAIN_DISABLE_PLUGINS."
            )
        return result.evaluation

    def _step(self, arguments: str, work: Callable[[], Result]) -> Result:
        """Do one step and remember what it took and how a user would do it."""
        from townlet_train.results import DemoStepDTO

        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        self.steps.append(DemoStepDTO(seconds=round(seconds, 2), command=f"townlet-train {arguments}"))
        return result
