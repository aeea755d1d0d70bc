"""What strategies may measure: any policy on the run's held-out seeds, and a checkpoint beside expert and random."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.envs.build import spec_of, start_ahead
from townlet_train.envs.episodes import Report
from townlet_train.envs.processes import Processes
from townlet_train.errors import CheckpointError
from townlet_train.policies.experts import EXPERTS, Experts, find_expert
from townlet_train.results import Comparison, EvaluationDTO, PolicyScoreDTO
from townlet_train.services.evaluation import MOST_ENVS, evaluate_as_configured


class EvaluationService:
    """Episode returns in the run's environment on the seeds of `config.evaluation`."""

    def __init__(
        self, config: RunConfig, experts: Experts = EXPERTS, processes: Processes | None = None
    ) -> None:
        self._config, self._experts, self._processes = config, experts, processes

    def check_env(self, env_id: str) -> None:
        """Raise `UnknownNameError` or `EnvironmentCreationError` when that environment cannot be built."""
        spec_of(self._config.model_copy(update={"env": env_id}))

    def start_ahead(self) -> None:
        """Start what evaluations will want and what takes a second, while something else is done.

        Raises:
            EnvironmentCreationError: the run's environment cannot be built.
        """
        if self._processes is not None:
            start_ahead(self._config, min(self._config.evaluation.episodes, MOST_ENVS), self._processes)

    def evaluate(
        self,
        *,
        checkpoint: Path | None = None,
        scripted: str | None = None,
        deterministic: bool | None = None,
        episodes: int | None = None,
        seed: int | None = None,
        report: Report = lambda done, total: None,
    ) -> EvaluationDTO:
        """What a checkpoint or a scripted policy earns; what is None is as `config.evaluation` says."""
        given = {"deterministic": deterministic, "episodes": episodes, "seed": seed}
        asked = {name: value for name, value in given.items() if value is not None}
        wanted = self._config.evaluation.model_copy(update=asked)
        config = self._config.model_copy(update={"evaluation": wanted})
        return evaluate_as_configured(
            config,
            checkpoint=checkpoint,
            scripted=scripted,
            report=report,
            experts=self._experts,
            processes=self._processes,
        )

    def compare(
        self, checkpoint: Path, *, name: str, report: Report = lambda done, total: None
    ) -> Comparison:
        """Score a checkpoint, sampled and greedy, on the scale where random is 0 and the expert 1.

        Where no expert plays nothing is compared. A checkpoint that knows other features or actions than this release's
        environment gives a warning alone.
        """
        spec = spec_of(self._config)
        if find_expert(spec.env_id, self._experts) is None:
            return Comparison()
        runs = {
            "expert": partial(self.evaluate, scripted="expert"),
            f"{name}, sampled": partial(self.evaluate, checkpoint=checkpoint, deterministic=False),
            f"{name}, greedy": partial(self.evaluate, checkpoint=checkpoint, deterministic=True),
            "random": partial(self.evaluate, scripted="random"),
        }
        try:
            load_checkpoint(checkpoint).info.check_matches(spec)
        except CheckpointError as error:
            return Comparison(warnings=(f"The {name} was not evaluated. {error}",))
        evaluations = {
            policy: run(report=_part(index, len(runs), report))
            for index, (policy, run) in enumerate(runs.items())
        }
        policies, doubts = score_policies(evaluations)
        warned = [warning for evaluation in evaluations.values() for warning in evaluation.warnings]
        returns = evaluations[f"{name}, sampled"].episode_returns
        return Comparison(policies, returns, tuple(dict.fromkeys([*warned, *doubts])))


def score_policies(
    evaluations: dict[str, EvaluationDTO],
) -> tuple[tuple[PolicyScoreDTO, ...], tuple[str, ...]]:
    """Every policy's return on the scale where "random" is 0 and "expert" is 1, and what is wrong with the scale."""
    zero, one = evaluations["random"].mean, evaluations["expert"].mean
    doubts: tuple[str, ...] = ()
    if one <= zero:
        doubts = (
            f"The expert earned {one:.4g} and random {zero:.4g}, so nothing can be scored between them. "
            f"Evaluate longer or more episodes.",
        )
    return tuple(_scored(name, evaluation, zero, one) for name, evaluation in evaluations.items()), doubts


def _scored(name: str, evaluation: EvaluationDTO, zero: float, one: float) -> PolicyScoreDTO:
    return PolicyScoreDTO(
        policy=name,
        mean_return=evaluation.mean,
        ci_low=evaluation.ci_low,
        ci_high=evaluation.ci_high,
        score=(evaluation.mean - zero) / (one - zero) if one > zero else None,
        faints_per_10k=10 * evaluation.events["faint"] if "faint" in evaluation.events else None,
    )


def _part(index: int, n_parts: int, report: Report) -> Report:
    """A report of one of several equal parts as a report of the whole."""
    return lambda done, total: report(index * total + done, n_parts * total)
