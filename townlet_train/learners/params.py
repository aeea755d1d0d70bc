"""What every method that learns from its own rollouts can be told; needs no torch."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from townlet_train.contract import StrategyParams

TICKS_BETWEEN_CHECKPOINTS, TICKS_BETWEEN_LINES = 1000, 100  # of all slots together, where nobody says


class OnPolicyParams(StrategyParams):
    """Params shared by methods that act, learn from it and act again."""

    may_change_on_resume: ClassVar[frozenset[str] | None] = frozenset(
        {"timesteps", "checkpoint_interval", "log_interval", "evaluation_episodes", "n_workers", "device"}
    )

    timesteps: int = Field(50_000, gt=0, description="steps of all slots together")
    n_envs: int = Field(1, gt=0, description="environments side by side, seeds counting up")
    n_workers: int | None = Field(
        None,
        gt=0,
        description="processes that step Gymnasium's environments; unset: what their steps are worth",
    )
    n_steps: int = Field(2048, gt=0, description="ticks between updates, in every environment")
    gamma: float = Field(0.99, ge=0, le=1, description="discount per tick")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, description="trust in rewards over values: 1 sums all of them"
    )
    learning_rate: float = Field(3e-4, gt=0, description="the optimiser's step size")
    learning_rate_schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear falls to 0 over the run"
    )
    ent_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    vf_coef: float = Field(0.5, ge=0, description="weight of the value loss")
    max_grad_norm: float = Field(0.5, gt=0, description="longer gradients are scaled down to this")
    normalize_advantage: bool = Field(True, description="mean 0 and deviation 1 in every batch")
    normalize_observations: bool = Field(False, description="features over their running deviation")
    normalize_rewards: bool = Field(False, description="rewards over the running deviation of returns")
    checkpoint_interval: int | None = Field(
        None, gt=0, description="steps between checkpoints; unset: 1000 ticks"
    )
    log_interval: int | None = Field(
        None, gt=0, description="steps between lines of metrics.jsonl; unset: 100 ticks"
    )
    evaluation_episodes: int | None = Field(
        None, ge=0, description="held-out episodes at the end; 0: none; unset: evaluation.episodes"
    )
    network: Literal["mlp", "conflict_aware"] | None = Field(
        None,
        description="mlp reads the features; conflict_aware the map too, as upstream's network; "
        "unset: that of the checkpoint to begin with, else mlp",
    )
    hidden_sizes: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="hidden layer widths; unset: the checkpoint's, else 64 64 for mlp, 256 for conflict_aware",
    )
    shared_trunk: bool = Field(
        False, description="actor and critic of an mlp read the same hidden layers; learns by autograd"
    )
    activation: Literal["tanh", "relu"] | None = Field(
        None,
        description="of the hidden layers; unset: the checkpoint's, else tanh for mlp, relu for conflict_aware, "
        "which has no other",
    )
    device: str = Field(
        "auto",
        min_length=1,
        description="cpu, cuda, cuda:1, ...; auto: the faster of the CPU and a GPU, measured",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the layers; auto: bfloat16 on a GPU where an update is 1.2 times as fast by it, measured",
    )

    @field_validator("device")
    @classmethod
    def _a_device_we_learn_on(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError("expected auto, cpu, cuda or cuda:1, cuda:2, ...")
        return device

    @model_validator(mode="after")
    def _widths_a_network_can_have(self) -> OnPolicyParams:
        if self.hidden_sizes is not None and min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden sizes are at least 1, {min(self.hidden_sizes)} was given")
        return self

    @model_validator(mode="after")
    def _conflict_aware_is_of_one_make(self) -> OnPolicyParams:
        if self.network == "conflict_aware" and self.hidden_sizes is not None and len(self.hidden_sizes) != 1:
            raise ValueError("network conflict_aware has one hidden size")
        if self.network == "conflict_aware" and self.activation == "tanh":
            raise ValueError("network conflict_aware has activation relu")
        if self.network == "conflict_aware" and self.shared_trunk:
            raise ValueError("network conflict_aware shares its layers anyway: leave shared_trunk out")
        return self

    @property
    def rows_per_gradient(self) -> int:
        """Steps that one gradient is of; a method that learns from batches says their size."""
        return self.n_steps * self.n_envs

    def checkpoint_steps(self, n_slots: int) -> int:
        """Steps between checkpoints when `n_slots` step together."""
        return self.checkpoint_interval or TICKS_BETWEEN_CHECKPOINTS * n_slots

    def log_steps(self, n_slots: int) -> int:
        """Steps between lines of metrics.jsonl when `n_slots` step together."""
        return self.log_interval or TICKS_BETWEEN_LINES * n_slots
