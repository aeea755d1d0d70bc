"""`townlet-train demo`: the whole way from nothing to a cloned villager, and the commands that go it step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from townlet_train.cli.options import JsonOutput, Overwrite
from townlet_train.cli.output import emit, reporting
from townlet_train.cli.session import load_settings, session_registry

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.contract import Progress
    from townlet_train.registry import Registry
    from townlet_train.results import DemoDTO, DemoStepDTO, EvaluationDTO, PolicyScoreDTO

PROMISED_ACCURACY, PROMISED_SCORES = 0.95, {"clone, sampled": 0.97, "clone, greedy": 0.95}
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
    """Capture the expert, clone it, and compare clone, expert and random in towns nobody trained on."""
    registry = session_registry(context)
    registry.select("bc")
    settings = load_settings(context, named={"seed": seed, "rollout.store": "memmap"})
    with reporting() as report:
        demo = Demo(settings.config, output_dir, overwrite=overwrite, report=report)
        result = demo.run(registry)
    return emit(result, json_output=json_output)


class Demo:
    """Capture, clone and evaluate, each step timed beside the command a user would type for it."""

    def __init__(
        self, config: RunConfig, output: Path, *, overwrite: bool, report: Callable[[Progress], None]
    ) -> None:
        self.config = config
        self.demonstrations, self.run_dir = output / "demonstrations", output / "run"
        self.overwrite = overwrite
        self.report = report
        self.steps: list[DemoStepDTO] = []

    def run(self, registry: Registry) -> DemoDTO:
        """Do it all."""
        from townlet_train.orchestrator import run_strategy
        from townlet_train.results import BCTrainingResultDTO, DemoDTO
        from townlet_train.services.runs import check_run_dir

        check_run_dir(self.run_dir, overwrite=self.overwrite)
        seed = self.config.seed
        captured = self._step(
            f"rollout capture --output {self.demonstrations} --seed {seed} --store memmap --no-maps",
            self._capture,
        )
        clone = self._step(
            f"bc --manifest {self.demonstrations} --seed {seed} --output-dir {self.run_dir}",
            lambda: run_strategy(
                "bc",
                {"manifest": self.demonstrations},
                config=self.config,
                registry=registry,
                run_dir=self.run_dir,
                overwrite=self.overwrite,
                report=self.report,
            ),
        )
        assert isinstance(clone, BCTrainingResultDTO)
        assert clone.checkpoint is not None
        assert clone.checkpoint_sha256 is not None
        evaluations = {
            "expert": self._evaluate("--policy expert", scripted="expert"),
            "clone, sampled": self._evaluate(clone.checkpoint, checkpoint=Path(clone.checkpoint)),
            "clone, greedy": self._evaluate(
                f"{clone.checkpoint} --deterministic", checkpoint=Path(clone.checkpoint), deterministic=True
            ),
            "random": self._evaluate("--policy random", scripted="random"),
        }
        scores = score_policies(evaluations)
        seen_seeds = [warning for evaluation in evaluations.values() for warning in evaluation.warnings]
        warnings = [*clone.warnings, *seen_seeds, *broken_promises(clone.val_accuracy, scores)]
        return DemoDTO(
            run_dir=str(self.run_dir),
            checkpoint=clone.checkpoint,
            checkpoint_sha256=clone.checkpoint_sha256,
            frames=captured,
            val_accuracy=clone.val_accuracy,
            val_accuracy_unforced=clone.val_accuracy_unforced,
            majority_share=clone.majority_share,
            first_seed=self.config.evaluation.seed,
            episodes=self.config.evaluation.episodes,
            policies=scores,
            steps=tuple(self.steps),
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _capture(self) -> int:
        """Capture the expert; returns the frames."""
        from townlet_train.config import config_hash
        from townlet_train.contract import Progress
        from townlet_train.envs.build import build_env
        from townlet_train.policies.scripted import scripted_policy
        from townlet_train.services.rollout import RolloutCaptureService

        wanted = self.config.rollout
        env = build_env(self.config, wanted.towns)
        captured = RolloutCaptureService(config_sha256=config_hash(self.config)).capture(
            env,
            scripted_policy("expert", env.spec),
            ticks=wanted.ticks,
            seeds=range(self.config.seed, self.config.seed + wanted.towns),
            output=self.demonstrations,
            store=wanted.store,
            with_maps=False,
            overwrite=self.overwrite,
            report=lambda done, total: self.report(Progress("capture", done, total, {})),
        )
        return captured.frames

    def _evaluate(
        self,
        arguments: str,
        *,
        checkpoint: Path | None = None,
        scripted: str | None = None,
        deterministic: bool = False,
    ) -> EvaluationDTO:
        from townlet_train.contract import Progress
        from townlet_train.services.evaluation import evaluate_as_configured

        wanted = self.config.evaluation.model_copy(update={"deterministic": deterministic})
        return self._step(
            f"evaluate {arguments} --episodes {wanted.episodes} --seed {wanted.seed}",
            lambda: evaluate_as_configured(
                self.config.model_copy(update={"evaluation": wanted}),
                checkpoint=checkpoint,
                scripted=scripted,
                report=lambda done, total: self.report(Progress(f"evaluate {arguments}", done, total, {})),
            ),
        )

    def _step(self, arguments: str, work: Callable[[], Result]) -> Result:
        """Do one step and remember what it took and how a user would do it."""
        from townlet_train.results import DemoStepDTO

        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        self.steps.append(DemoStepDTO(seconds=round(seconds, 2), command=f"townlet-train {arguments}"))
        return result


def score_policies(evaluations: dict[str, EvaluationDTO]) -> tuple[PolicyScoreDTO, ...]:
    """Every policy's return on the scale where "random" is 0 and "expert" is 1."""
    from townlet_train.results import PolicyScoreDTO

    zero, one = evaluations["random"].mean, evaluations["expert"].mean
    return tuple(
        PolicyScoreDTO(
            policy=name,
            mean_return=evaluation.mean,
            ci_low=evaluation.ci_low,
            ci_high=evaluation.ci_high,
            score=(evaluation.mean - zero) / (one - zero),
            faints_per_10k=10 * evaluation.events["faint"],
        )
        for name, evaluation in evaluations.items()
    )


def broken_promises(val_accuracy: float | None, scores: tuple[PolicyScoreDTO, ...]) -> list[str]:
    """A sentence for each promise of the demo that was not kept."""
    broken = [
        f"The {score.policy} reached {score.score:.3f} of the way from random to expert; {promised} is promised."
        for score in scores
        if (promised := PROMISED_SCORES.get(score.policy)) is not None and score.score < promised
    ]
    if val_accuracy is None or val_accuracy < PROMISED_ACCURACY:
        broken.append(f"Held-out accuracy is {val_accuracy}; {PROMISED_ACCURACY} is promised.")
    return broken
