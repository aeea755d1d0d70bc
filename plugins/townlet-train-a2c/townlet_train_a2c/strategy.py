"""A2C as a strategy: its params, and its result; `townlet_train.learners.on_policy` does the work that PPO does too."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from townlet_train.api import OnPolicyResultDTO, StrategyParams, TrainingContext, build_env
from townlet_train.learners.params import OnPolicyParams


class A2CParams(OnPolicyParams):
    """What A2C can be told; names and defaults are Stable-Baselines3's."""

    n_steps: int = Field(5, gt=0, description="ticks between updates, in every environment")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="trust in rewards over values: 1 sums all of them")
    learning_rate: float = Field(7e-4, gt=0, description="the optimiser's step size")
    normalize_advantage: bool = Field(False, description="mean 0 and deviation 1 in every update")
    rms_prop_eps: float = Field(1e-5, gt=0, description="keeps RMSProp from dividing by 0")


class A2CTrainingResultDTO(OnPolicyResultDTO):
    """What A2C reached; losses and their kin are those of the last update, NaN (null in JSON) if it was skipped."""

    strategy: str = "a2c"


class A2CStrategy:
    """Improve a policy by what its own actions bring, a few steps at a time."""

    name: ClassVar[str] = "a2c"
    summary: ClassVar[str] = "Advantage actor-critic: improve by acting, a gradient every few steps."
    requires_torch: ClassVar[bool] = True
    Params: ClassVar[type[StrategyParams]] = A2CParams

    def __init__(self, params: A2CParams) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse an environment that cannot be built, and a device that does not work."""
        from townlet_train.learners.devices import AUTO, checked_device

        build_env(context.config, 1).close()
        if self.params.device != AUTO:
            checked_device(self.params.device)

    def run(self, context: TrainingContext) -> A2CTrainingResultDTO:
        """Collect, update, log, repeat, for `timesteps`; the final weights become the model."""
        from townlet_train.learners.on_policy import train
        from townlet_train_a2c.learner import A2CLearner

        trained = train(
            context,
            self.params,
            algorithm=self.name,
            build_learner=lambda network, rng, placement: A2CLearner(network, self.params, rng, placement),
        )
        return A2CTrainingResultDTO(**trained.stats.telemetry(), **trained.facts)
