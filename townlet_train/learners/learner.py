"""What PPO and A2C have in common: a network whose weights are one vector, its descent, the scale of rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.data.checkpoint import Arrays, below, under
from townlet_train.envs.normalise import RewardScale, RunningMoments
from townlet_train.learners.actor_critic import (
    ActorCritic,
    MlpActorCritic,
    parameter_order,
)
from townlet_train.learners.descent import GuardedDescent
from townlet_train.learners.devices import Placement
from townlet_train.learners.networks import (
    FlatParameters,
    PolicyNetwork,
    build_network,
    export_weights,
    import_weights,
)
from townlet_train.learners.optimisers import FlatAdam, FlatOptimiser
from townlet_train.learners.rollouts import Normaliser
from townlet_train.learners.surrogate import Objective, Transitions
from townlet_train.policies.network import NetworkSpec

REWARD_CLIP = 10.0  # deviations, as Stable-Baselines3's VecNormalize has it

TRIAL = Objective(clip_range=0.2, clip_range_vf=None, ent_coef=0.01, vf_coef=0.5, normalize_advantage=True)

Schedule = Literal["constant", "linear"]


class CommonSettings(Protocol):
    """The settings every learner has."""

    @property
    def gamma(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def normalize_rewards(self) -> bool: ...


class PolicyLearner:
    """A network to improve; an equal `rng` gives equal weights, bit for bit. Subclasses say how it learns."""

    def __init__(
        self,
        spec: NetworkSpec,
        settings: CommonSettings,
        rng: np.random.Generator,
        build_optimiser: Callable[[Tensor, Tensor], FlatOptimiser],
        placement: Placement,
        frozen: Iterable[str] = (),
    ) -> None:
        self.spec, self._common = spec, settings
        self._network = build_network(spec, rng).to(placement.device)
        self._parameters = FlatParameters(self._network, parameter_order(spec))
        arrays = self._network.state_dict()  # the network's own memory, which every change is made in
        on_host = all(tensor.device.type == "cpu" for tensor in arrays.values())
        self._arrays = {name: tensor.numpy() for name, tensor in arrays.items()} if on_host else None
        self.actor_critic = build_actor_critic(self._network, self._parameters, placement)
        optimiser = build_optimiser(self._parameters.vector, self._parameters.gradient)
        self.descent = GuardedDescent(self._parameters, optimiser, settings.max_grad_norm, frozen)
        self._reward_scale: RewardScale | None = None
        self._adopted_moments: RunningMoments | None = None  # of another run's returns, to begin a scale with

    @property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all arrays by name, ready for a checkpoint."""
        if self._arrays is None:
            return export_weights(self._network)
        return {name: array.copy() for name, array in self._arrays.items()}

    def load_weights(self, weights: Arrays) -> None:
        """Take over all arrays by name, the normaliser's included."""
        import_weights(self._network, weights)

    def state(self) -> Arrays:
        """Copies of what learning depends on beside the weights: the optimiser, and what rewards are divided by."""
        scale = self._reward_scale.arrays() if self._reward_scale else {}
        adopted = self._adopted_moments.arrays() if self._adopted_moments else {}
        return {**self.descent.state(), **under("reward_scale", scale), **under("adopted_returns", adopted)}

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        self.descent.restore(state)
        scale = below("reward_scale", state)
        self._reward_scale = RewardScale.from_arrays(scale) if scale else None
        adopted = below("adopted_returns", state)
        self._adopted_moments = RunningMoments.from_arrays(adopted) if adopted else None

    def adopt(self, state: Arrays | None, *, optimiser: bool = True) -> None:
        """Begin anew with the weights as they are, and what another run's `state` knows of rewards and gradients.

        Without its `optimiser`, gradients are unknown.
        """
        self.descent.adopt(state if optimiser else None)
        moments = below("reward_scale", state or {})
        if moments and self._common.normalize_rewards:
            self._adopted_moments = RunningMoments.from_arrays(moments)

    @property
    def n_updates(self) -> int:
        """Optimiser steps made."""
        return self.descent.n_updates

    @property
    def restores(self) -> int:
        """Returns to the last good weights, after updates that were not finite."""
        return self.descent.restores

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Let the network, and so every checkpoint, standardise features like this from now on."""
        self._network.normaliser.mean.copy_(torch.from_numpy(normaliser.mean))
        self._network.normaliser.std.copy_(torch.from_numpy(normaliser.std))

    def scaled_rewards(
        self, rewards: NDArray[np.float32], ended: NDArray[np.bool_], *, on_policy: bool = True
    ) -> NDArray[np.float32]:
        """Rewards (n_steps, n_envs, n_agents) as they are learned from; after a step that ended, returns begin anew.

        They count towards their scale, unless they were recorded and there is one already. What is not finite counts
        for nothing and stays as it is, so that the update that meets it is skipped.
        """
        if not self._common.normalize_rewards:
            return rewards
        if on_policy or self._reward_scale is None:
            _, n_envs, n_agents = rewards.shape
            scale = self._reward_scale or RewardScale.empty(
                n_envs, n_agents, self._common.gamma, self._adopted_moments
            )
            self._reward_scale = scale.updated(rewards, ended)
        return self._reward_scale.scaled(rewards, REWARD_CLIP)


def build_actor_critic(
    network: PolicyNetwork, parameters: FlatParameters, placement: Placement
) -> ActorCritic:
    """The fastest way to use a network where it is: written out for those we know on the CPU, else by autograd."""
    spec = network.spec
    on_cpu = parameters.vector.device.type == "cpu"
    written_out = on_cpu and placement.precision == "float32"
    if written_out and spec.kind == "mlp" and not spec.shared_trunk:
        return MlpActorCritic(spec, parameters)
    if written_out and spec.kind == "conflict_aware" and spec.distribution == "categorical":
        from townlet_train.learners import conflict_aware  # brings numba, which others need not wait for

        return conflict_aware.ConflictAwareActorCritic(spec, parameters)
    from townlet_train.learners import autograd  # likewise, torch's compiler

    return autograd.AutogradActorCritic(
        network,
        parameters,
        precision=placement.precision,
        compiler=autograd.captured if parameters.vector.device.type == "cuda" else None,
    )


def update_trial(spec: NetworkSpec, n_rows: int, placement: Placement) -> Callable[[], object]:
    """What makes one update of such a network somewhere, as training does, from made-up rows."""
    rng = np.random.default_rng(0)
    network = build_network(spec, rng).to(placement.device)
    parameters = FlatParameters(network, parameter_order(spec))
    actor_critic = build_actor_critic(network, parameters, placement)
    adam = FlatAdam(parameters.vector, parameters.gradient, eps=1e-5)
    descent = GuardedDescent(parameters, adam, max_grad_norm=0.5)
    categorical = spec.distribution == "categorical"
    vectors, rows = np.zeros((n_rows, spec.n_actions), np.float32), np.zeros(n_rows, np.float32)
    lesson = actor_critic.lesson(
        Transitions(
            features=rng.standard_normal((n_rows, spec.n_features), np.float32),
            maps=np.zeros((n_rows, *spec.map_shape), np.uint8) if spec.kind == "conflict_aware" else None,
            illegal=None,
            reference=None,
            actions=np.zeros(n_rows, np.int64) if categorical else vectors,
            log_probs=rows,
            values=rows,
            advantages=rng.standard_normal(n_rows, np.float32),
            returns=rows,
        )
    )

    def update() -> float:
        for losses, norm, batch in lesson.gradients(np.arange(n_rows), n_rows, TRIAL):
            descent.step(losses.loss, 0.0, batch, norm)
        return parameters.vector[0].item()  # read back, so that nothing is pending

    return update


def scheduled(value: float, schedule: Schedule, progress: float) -> float:
    """A setting at some share of the run: as it is, or falling linearly to 0.

    >>> scheduled(0.2, "linear", progress=0.75)
    0.05
    """
    return value * (1 - progress) if schedule == "linear" else value
