"""Proximal policy optimisation (Schulman et al. 2017) with the knobs and defaults of Stable-Baselines3.

One update: advantages, then some epochs over the rollout in shuffled batches; each batch is one gradient, clipped, and
one step of Adam on a single vector. What is not finite never reaches the weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Arrays
from townlet_train.envs.normalise import RewardScale
from townlet_train.envs.protocol import EnvSpec
from townlet_train.errors import ConfigError, TrainingError
from townlet_train.learners.actor_critic import (
    ActorCritic,
    AutogradActorCritic,
    MlpActorCritic,
    parameter_order,
)
from townlet_train.learners.advantages import compute_gae, explained_variance
from townlet_train.learners.bc import HIDDEN_SIZES, select_device
from townlet_train.learners.networks import FlatParameters, build_network, export_weights
from townlet_train.learners.optimisers import FlatAdam
from townlet_train.learners.rollouts import Normaliser, Rollout
from townlet_train.learners.surrogate import Losses, Objective, Transitions
from townlet_train.policies.network import Activation, NetworkKind, NetworkSpec

ADAM_EPS = 1e-5
REWARD_CLIP = 10.0  # deviations, as Stable-Baselines3's VecNormalize has it
UNCLIPPED = 1e9  # features reach the network as they are, where nothing standardises them
FEATURE_CLIP = 10.0  # deviations
SKIPS_IN_A_ROW = 5  # so many updates without a finite gradient, and the last good weights come back
MOST_RESTORES = 3
logger = logging.getLogger(__name__)

Schedule = Literal["constant", "linear"]


@dataclass(frozen=True)
class PPOSettings:
    """How to improve; names and defaults are Stable-Baselines3's."""

    learning_rate: float = 3e-4
    batch_size: int = 64
    n_epochs: int = 10
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    clip_range_vf: float | None = None
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    normalize_advantage: bool = True
    learning_rate_schedule: Schedule = "constant"
    clip_range_schedule: Schedule = "constant"
    normalize_rewards: bool = False  # over the deviation of the discounted return so far
    device: str = "cpu"


@dataclass(frozen=True)
class PPOStats:
    """What one rollout's updates measured: means over them unless said otherwise."""

    loss: float
    policy_loss: float
    value_loss: float
    entropy: float  # nats
    approx_kl: float
    approx_kl_max: float
    clip_fraction: float
    clip_fraction_max: float
    grad_norm: float  # before clipping
    grad_norm_max: float
    explained_variance: float  # of the values the rollout was played with; NaN for constant returns
    advantage_mean: float
    advantage_std: float
    learning_rate: float
    clip_range: float
    n_updates: int
    n_epochs: int  # fewer than asked where target_kl ended them
    skipped_updates: int  # since the run began

    def telemetry(self) -> dict[str, float | None]:
        """The same under the names of Townlet's logs."""
        constant_returns = math.isnan(self.explained_variance)
        return {
            "loss_policy": self.policy_loss,
            "loss_value": self.value_loss,
            "loss_entropy": self.entropy,
            "loss_total": self.loss,
            "clip_fraction": self.clip_fraction,
            "clip_fraction_max": self.clip_fraction_max,
            "adv_mean": self.advantage_mean,
            "adv_std": self.advantage_std,
            "grad_norm": self.grad_norm,
            "grad_norm_max": self.grad_norm_max,
            "kl_divergence": self.approx_kl,
            "kl_divergence_max": self.approx_kl_max,
            "explained_variance": None if constant_returns else self.explained_variance,
            "lr": self.learning_rate,
            "skipped_updates": self.skipped_updates,
        }


class PPOLearner:
    """One network that improves by what its actions brought; an equal `rng` gives equal weights, bit for bit."""

    def __init__(self, spec: NetworkSpec, settings: PPOSettings, rng: np.random.Generator) -> None:
        self.spec, self.settings = spec, settings
        self.n_updates = self.skipped_updates = self.restores = 0
        self._rng = rng
        self._network = build_network(spec, rng).to(select_device(settings.device))
        self._parameters = FlatParameters(self._network, parameter_order(spec))
        self.actor_critic = self._build_actor_critic()
        self._adam = FlatAdam(self._parameters.vector, self._parameters.gradient, eps=ADAM_EPS)
        self._learning_rate, self._rate_factor = settings.learning_rate, 1.0
        self._reward_scale: RewardScale | None = None
        self._skipped_in_a_row = 0
        self._good = self._parameters.vector.clone()

    @property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all arrays by name, ready for a checkpoint."""
        return export_weights(self._network)

    def optimizer_arrays(self) -> Arrays:
        """Adam's moments, in the order of `parameter_order`, and what rewards are divided by."""
        scale = self._reward_scale.arrays() if self._reward_scale else {}
        return {**self._adam.arrays(), **{f"reward_scale.{name}": array for name, array in scale.items()}}

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Let the network, and so every checkpoint, standardise features like this from now on."""
        self._network.normaliser.mean.copy_(torch.from_numpy(normaliser.mean))
        self._network.normaliser.std.copy_(torch.from_numpy(normaliser.std))

    def update(
        self, rollout: Rollout, progress: float, on_epoch: Callable[[], None] = lambda: None
    ) -> PPOStats:
        """Learn from one rollout; `progress` is the share of the run done before it, 0 to 1.

        `on_epoch` is called after every epoch and may raise.

        Raises:
            TrainingError: losses or gradients stay non-finite although weights were restored; names the first array.
        """
        transitions, shaped_like = self._transitions(rollout), rollout.values[:-1].ravel()
        self._learning_rate = rate = self._scheduled_rate(progress)
        objective = self._objective(progress)
        measured: list[_Update] = []
        epoch, close = 0, True
        while epoch < self.settings.n_epochs and close:
            with np.errstate(over="ignore", invalid="ignore"):  # found by `_train_epoch`, in every batch
                close = self._train_epoch(transitions, objective, measured)
            epoch += 1
            on_epoch()
        if self._skipped_in_a_row == 0:
            self._good.copy_(self._parameters.vector)
        table = np.array([[*update.losses, update.grad_norm] for update in measured] or [[math.nan] * 7])
        mean, most = table.mean(axis=0).tolist(), table.max(axis=0).tolist()
        return PPOStats(
            loss=mean[0],
            policy_loss=mean[1],
            value_loss=mean[2],
            entropy=mean[3],
            approx_kl=mean[4],
            approx_kl_max=most[4],
            clip_fraction=mean[5],
            clip_fraction_max=most[5],
            grad_norm=mean[6],
            grad_norm_max=most[6],
            explained_variance=explained_variance(shaped_like, transitions.returns),
            advantage_mean=float(transitions.advantages.mean()),
            advantage_std=float(transitions.advantages.std()),
            learning_rate=rate,
            clip_range=objective.clip_range,
            n_updates=len(measured),
            n_epochs=epoch,
            skipped_updates=self.skipped_updates,
        )

    def _train_epoch(self, transitions: Transitions, objective: Objective, measured: list[_Update]) -> bool:
        """One pass in a new order; False when a batch was further from the rollout's policy than 1.5 target_kl."""
        shuffled = transitions.take(self._rng.permutation(len(transitions.returns)))
        target_kl = self.settings.target_kl
        for batch in shuffled.batches(self.settings.batch_size):
            losses = self.actor_critic.gradient(batch, objective)
            if target_kl is not None and losses.approx_kl > 1.5 * target_kl:
                return False
            grad_norm = self._clip_gradient()
            if not (math.isfinite(losses.loss) and math.isfinite(grad_norm)):
                self._skip(batch)
                continue
            self._adam.step(self._learning_rate)
            self.n_updates += 1
            self._skipped_in_a_row = 0
            measured.append(_Update(losses, grad_norm))
        return True

    def _clip_gradient(self) -> float:
        """Scale the gradient down to `max_grad_norm`; returns its norm before."""
        gradient = self._parameters.gradient
        norm = math.sqrt(float(torch.dot(gradient, gradient)))
        if norm > self.settings.max_grad_norm:
            gradient *= self.settings.max_grad_norm / (norm + 1e-6)
        return norm

    def _skip(self, batch: Transitions) -> None:
        """Leave the weights as they are; after some skips in a row, as they were, with half the step size."""
        self.skipped_updates += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row < SKIPS_IN_A_ROW:
            return
        culprit = self._first_non_finite(batch)
        if self.restores == MOST_RESTORES:
            raise TrainingError(
                f"{SKIPS_IN_A_ROW} updates in a row were not finite, after {self.restores} returns to good weights; "
                f"the first array that is not finite is {culprit!r}. Lower the learning rate, it was "
                f"{self.settings.learning_rate:g}, or look at what the environment returns."
            )
        self.restores += 1
        self._skipped_in_a_row = 0
        self._rate_factor /= 2
        self._learning_rate /= 2
        self._parameters.vector.copy_(self._good)
        self._adam.reset()
        logger.warning("%r is not finite; back to the last good weights, learning rate halved", culprit)

    def _first_non_finite(self, batch: Transitions) -> str:
        """The name of the array where the trouble starts: what was observed, then weights, then gradients."""
        arrays = {name: getattr(batch, name) for name in batch._fields if name not in ("maps", "illegal")}
        arrays |= {name: tensor.cpu().numpy() for name, tensor in self._parameters.values.items()}
        gradients = self._parameters.gradients.items()
        arrays |= {f"gradient of {name}": tensor.cpu().numpy() for name, tensor in gradients}
        return next((name for name, array in arrays.items() if not np.isfinite(array).all()), "loss")

    def _transitions(self, rollout: Rollout) -> Transitions:
        """The rollout with advantages, its time and slots as one axis."""
        advantages, returns = compute_gae(
            self._scaled_rewards(rollout),
            rollout.values,
            rollout.terminated,
            rollout.truncated,
            rollout.final_values,
            self.settings.gamma,
            self.settings.gae_lambda,
        )
        n, illegal, maps = rollout.rewards.size, rollout.illegal, rollout.maps
        return Transitions(
            features=rollout.features.reshape(n, -1),
            maps=None if maps is None else maps.reshape(n, *maps.shape[3:]),
            illegal=None if illegal is None else illegal.reshape(n, -1).T,
            actions=rollout.actions.reshape(n, *rollout.actions.shape[3:]),
            log_probs=rollout.log_probs.reshape(n),
            values=rollout.values[:-1].reshape(n),
            advantages=advantages.reshape(n),
            returns=returns.reshape(n),
        )

    def _scaled_rewards(self, rollout: Rollout) -> NDArray[np.float32]:
        """Rewards as they are learned from."""
        rewards, ended = rollout.rewards, rollout.terminated | rollout.truncated
        if not self.settings.normalize_rewards or not np.isfinite(rewards).all():
            return rewards
        _, n_envs, n_agents = rewards.shape
        scale = self._reward_scale or RewardScale.empty(n_envs, n_agents, self.settings.gamma)
        self._reward_scale = scale.updated(rewards, ended)
        return self._reward_scale.scaled(rewards, REWARD_CLIP)

    def _scheduled_rate(self, progress: float) -> float:
        s = self.settings
        return scheduled(s.learning_rate, s.learning_rate_schedule, progress) * self._rate_factor

    def _objective(self, progress: float) -> Objective:
        s = self.settings
        clip_range = scheduled(s.clip_range, s.clip_range_schedule, progress)
        return Objective(clip_range, s.clip_range_vf, s.ent_coef, s.vf_coef, s.normalize_advantage)

    def _build_actor_critic(self) -> ActorCritic:
        if self.spec.kind == "mlp" and self.settings.device == "cpu":
            return MlpActorCritic(self.spec, self._parameters)
        return AutogradActorCritic(self._network, self._parameters)


def scheduled(value: float, schedule: Schedule, progress: float) -> float:
    """A setting at some share of the run: as it is, or falling linearly to 0.

    >>> scheduled(0.2, "linear", progress=0.75)
    0.05
    """
    return value * (1 - progress) if schedule == "linear" else value


def network_for_env(
    env: EnvSpec,
    kind: NetworkKind,
    hidden_sizes: tuple[int, ...] | None = None,
    feature_clip: float = UNCLIPPED,
    activation: Activation | None = None,
) -> NetworkSpec:
    """The network of that kind for an environment, of the usual width and activation unless told.

    Raises:
        ConfigError: the environment shows no map, which the network reads.
    """
    reads_maps = kind == "conflict_aware"
    if reads_maps and not env.map_channels:
        raise ConfigError(f"{env.env_id} shows no maps, which a conflict_aware network reads. Use mlp.")
    return NetworkSpec(
        kind=kind,
        n_features=len(env.feature_names),
        n_actions=len(env.action_low) or len(env.action_names),
        hidden_sizes=hidden_sizes or HIDDEN_SIZES[kind],
        activation=activation or ("relu" if reads_maps else "tanh"),
        map_shape=env.map_shape if reads_maps else (0, 0, 0),
        feature_clip=feature_clip,
        distribution="gaussian" if env.action_low else "categorical",
    )


class _Update(NamedTuple):
    """One optimiser step's losses and gradient norm."""

    losses: Losses
    grad_norm: float
