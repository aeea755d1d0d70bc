"""PPO and A2C of Stable-Baselines3 as strategies: their params, under its names and with its defaults, and results."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from townlet_train.api import OnPolicyResultDTO, StrategyParams, TrainingContext, UsageError, build_env
from townlet_train_sb3.needed import INSTALLED_BY, check_installed

OURS = frozenset(
    {
        *("timesteps", "n_envs", "net_arch", "activation_fn"),
        *("checkpoint_interval", "log_interval", "evaluation_episodes"),
    }
)
"""Params that are no arguments of Stable-Baselines3's algorithms."""

REQUIRES = {"stable_baselines3": INSTALLED_BY["stable_baselines3"]}


class SB3Params(StrategyParams):
    """What both methods can be told."""

    timesteps: int = Field(
        50_000, gt=0, description="steps of all environments together; the rollout they end in is finished"
    )
    n_envs: int = Field(1, gt=0, description="environments side by side, seeds counting up")
    learning_rate: float = Field(3e-4, gt=0, description="the optimiser's step size")
    n_steps: int = Field(2048, gt=0, description="ticks between updates, in every environment")
    gamma: float = Field(0.99, ge=0, le=1, description="discount per tick")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, description="trust in rewards over values: 1 sums all of them"
    )
    normalize_advantage: bool = Field(True, description="mean 0 and deviation 1 in every batch")
    ent_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: float = Field(0.5, ge=0, description="weight of the value loss")
    max_grad_norm: float = Field(0.5, gt=0, description="longer gradients are scaled down to this")
    net_arch: tuple[int, ...] = Field(
        (64, 64), min_length=1, description="hidden layer widths of actor and critic, each its own"
    )
    activation_fn: Literal["tanh", "relu"] = Field("tanh", description="of the hidden layers")
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="where networks are; for an mlp the CPU is faster"
    )
    checkpoint_interval: int | None = Field(
        None, gt=0, description="steps between checkpoints; unset: 1000 ticks"
    )
    log_interval: int | None = Field(
        None, gt=0, description="steps between lines of metrics.jsonl; unset: 100 ticks"
    )
    evaluation_episodes: int | None = Field(
        None, ge=0, description="held-out episodes at the end; 0: none; unset: evaluation.episodes"
    )

    @model_validator(mode="after")
    def _widths_a_network_can_have(self) -> SB3Params:
        if min(self.net_arch) < 1:
            raise ValueError(f"widths in net_arch are at least 1, {min(self.net_arch)} was given")
        return self

    @property
    def steps_per_rollout(self) -> int:
        """Steps of all environments between updates."""
        return self.n_steps * self.n_envs

    @property
    def total_steps(self) -> int:
        """The steps that `timesteps` come to in whole rollouts."""
        return -(-self.timesteps // self.steps_per_rollout) * self.steps_per_rollout


class SB3PPOParams(SB3Params):
    """What Stable-Baselines3's PPO can be told."""

    batch_size: int = Field(64, gt=1, description="steps per update")
    n_epochs: int = Field(10, gt=0, description="passes over every rollout")
    clip_range: float = Field(0.2, gt=0, description="how far a probability ratio may count")
    clip_range_vf: float | None = Field(None, gt=0, description="how far a value may move; unset: any way")
    target_kl: float | None = Field(
        None, gt=0, description="no more updates of a rollout beyond 1.5 times this; unset: all of them"
    )

    @model_validator(mode="after")
    def _advantages_that_vary(self) -> SB3PPOParams:
        if self.steps_per_rollout < 2:
            raise ValueError("a rollout has at least 2 steps, n_steps times n_envs is 1")
        return self


class SB3A2CParams(SB3Params):
    """What Stable-Baselines3's A2C can be told."""

    learning_rate: float = Field(7e-4, gt=0, description="the optimiser's step size")
    n_steps: int = Field(5, gt=0, description="ticks between updates, in every environment")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="trust in rewards over values: 1 sums all of them")
    normalize_advantage: bool = Field(False, description="mean 0 and deviation 1 in every update")
    use_rms_prop: bool = Field(True, description="RMSProp, otherwise Adam")
    rms_prop_eps: float = Field(1e-5, gt=0, description="keeps RMSProp from dividing by 0")


class SB3A2CResultDTO(OnPolicyResultDTO):
    """What A2C reached; Stable-Baselines3 does not tell `grad_norm`, which is null."""

    strategy: str = "sb3-a2c"


class SB3PPOResultDTO(OnPolicyResultDTO):
    """What PPO reached; losses and their kin are means over the last rollout's updates, `grad_norm` is null."""

    strategy: str = "sb3-ppo"
    clip_fraction: float = Field(description="share of probability ratios beyond the clip range")
    kl_divergence: float = Field(description="k3 estimate of KL(old, new), nats, mean of the last epoch")


class SB3Strategy:
    """What both algorithms have in common."""

    name: ClassVar[str]
    requires_torch: ClassVar[bool] = True
    requires: ClassVar[Mapping[str, str]] = REQUIRES

    def __init__(self, params: SB3Params) -> None:
        self.params = params

    def prepare(self, context: TrainingContext) -> None:
        """Refuse what Stable-Baselines3 cannot learn in, and to go on without it."""
        check_env(context, self.name)
        check_device(self.params)


class SB3PPO(SB3Strategy):
    """Improve a policy by what its own actions bring, as Stable-Baselines3's PPO does."""

    name: ClassVar[str] = "sb3-ppo"
    summary: ClassVar[str] = "Stable-Baselines3's own PPO, into a run directory and checkpoints of ours."
    Params: ClassVar[type[StrategyParams]] = SB3PPOParams

    def run(self, context: TrainingContext) -> SB3PPOResultDTO:
        """Learn for `timesteps`; the final weights become the model."""
        from stable_baselines3 import PPO

        from townlet_train_sb3.training import train

        trained = train(context, self.params, self.name, PPO)
        return SB3PPOResultDTO(
            **trained.facts,
            clip_fraction=trained.told["clip_fraction"],
            kl_divergence=trained.told["approx_kl"],
        )


class SB3A2C(SB3Strategy):
    """Improve a policy by what its own actions bring, as Stable-Baselines3's A2C does."""

    name: ClassVar[str] = "sb3-a2c"
    summary: ClassVar[str] = "Stable-Baselines3's own A2C, into a run directory and checkpoints of ours."
    Params: ClassVar[type[StrategyParams]] = SB3A2CParams

    def run(self, context: TrainingContext) -> SB3A2CResultDTO:
        """Learn for `timesteps`; the final weights become the model."""
        from stable_baselines3 import A2C

        from townlet_train_sb3.training import train

        return SB3A2CResultDTO(**train(context, self.params, self.name, A2C).facts)


def check_env(context: TrainingContext, strategy: str) -> None:
    """Refuse an environment of several agents, or that cannot be built.

    Raises:
        UsageError: it has several agents in it, or shows maps.
        TownletTrainError: Stable-Baselines3 is not installed.
    """
    check_installed(f"Strategy {strategy!r}", "stable_baselines3")
    with closing(build_env(context.config, 1)) as env:
        if env.n_agents != 1 or env.spec.map_channels:
            raise UsageError(
                f"{strategy} learns where one agent acts and all of its actions are legal, {env.spec.env_id} has "
                f"masks, and agents: {env.n_agents}. Use ppo there, or another --env."
            )


def check_device(params: SB3Params) -> None:
    """Refuse a device that does not work.

    Raises:
        TrainingError: there is none of that name.
    """
    from townlet_train.learners.devices import checked_device

    checked_device(params.device)
