"""Random search for townlet-train; importing this module needs no NumPy, and running it no torch."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from townlet_train.api import (
    EvaluationDTO,
    Interrupted,
    Progress,
    StrategyParams,
    TrainingContext,
    TrainingResultDTO,
    TrainingStrategy,
    UsageError,
    hookimpl,
    sha256_of,
)

TOWNLET_TRAIN_API = 1


class RandomSearchParams(StrategyParams):
    """What random search can be told; letters are those of Mania et al. 2018, algorithm 1."""

    n_iterations: int = Field(30, gt=0, description="steps of the search")
    n_directions: int = Field(8, gt=1, description="directions tried in each, forwards and backwards (N)")
    n_best: int = Field(8, gt=1, description="directions that count, the best of them, at most all (b)")
    step_size: float = Field(0.02, gt=0, description="length of a step (alpha)")
    noise: float = Field(0.03, gt=0, description="deviation of what is tried (nu)")
    max_ticks: int = Field(1000, gt=0, description="where an episode that goes on is cut")
    evaluation_episodes: int | None = Field(
        None, ge=0, description="held-out episodes at the end; 0: none; unset: evaluation.episodes"
    )


class RandomSearchResultDTO(TrainingResultDTO):
    """What random search reached."""

    strategy: str = "random-search"
    steps: int = Field(
        ge=0, description="agent-ticks stepped, the idle ones of episodes that are over included"
    )
    return_mean: float = Field(description="mean return of what the last step tried")
    evaluation: EvaluationDTO | None = Field(None, description="of the policy, on held-out seeds")
    final_reward_mean: float | None = Field(None, description="mean return of the evaluated episodes")


class RandomSearch:
    """Try directions in the space of linear policies, and go where returns grow."""

    name: ClassVar[str] = "random-search"
    summary: ClassVar[str] = "Random search over linear policies, without torch."
    requires_torch: ClassVar[bool] = False
    Params: ClassVar[type[StrategyParams]] = RandomSearchParams

    def __init__(self, params: RandomSearchParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse an environment that cannot be built, or whose actions are vectors."""
        from townlet_train.api import build_env

        with closing(build_env(context.config, 1)) as env:
            if env.spec.action_shape:
                raise UsageError(
                    f"Random search chooses among named actions, those of {env.spec.env_id} are vectors. Use ppo there."
                )

    def run(self, context: TrainingContext) -> RandomSearchResultDTO:
        """Search, save, evaluate."""
        from townlet_train_random_search.search import search

        reached = search(context, self.params, self.name)
        evaluation = self._evaluate(reached.model, context)
        return RandomSearchResultDTO(
            steps=reached.steps,
            return_mean=reached.return_mean,
            evaluation=evaluation,
            final_reward_mean=None if evaluation is None else evaluation.mean,
            checkpoint=str(reached.model),
            checkpoint_sha256=sha256_of(reached.model),
        )

    def _evaluate(self, model: Path, context: TrainingContext) -> EvaluationDTO | None:
        """The returns on held-out seeds, where they are asked for.

        Raises:
            Interrupted: the user asked to stop; names the policy, which is whole.
        """
        if self.params.evaluation_episodes == 0:
            return None
        try:
            return context.services.evaluation.evaluate(
                checkpoint=model,
                episodes=self.params.evaluation_episodes,
                report=lambda done, total: context.report(Progress("evaluation", done, total, {})),
            )
        except Interrupted as stop:
            raise Interrupted(f"{stop} The search had ended; the policy is {model}") from stop


@hookimpl
def townlet_train_strategies() -> list[type[TrainingStrategy]]:
    """The strategies of this distribution."""
    return [RandomSearch]
