"""Proximal policy optimisation (Schulman et al. 2017) with the knobs and defaults of Stable-Baselines3.

One update: advantages, then some epochs over the rollout in shuffled batches; each batch is one gradient, clipped, and
one step of Adam on a single vector. What is not finite never reaches the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Arrays
from townlet_train.learners.advantages import compute_gae, explained_variance
from townlet_train.learners.learner import PolicyLearner, Schedule, scheduled
from townlet_train.learners.optimisers import FlatAdam
from townlet_train.learners.reference import ReferencePolicy
from townlet_train.learners.rollouts import Played, Rollout, evaluated
from townlet_train.learners.surrogate import Losses, Objective, Transitions
from townlet_train.learners.telemetry import batch_deviations, correlation
from townlet_train.policies.network import NetworkSpec

ADAM_EPS = 1e-5
FLAT = 1e-8  # advantages of a batch that deviate less are all alike


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
    learning_rate_warmup: int = 0  # updates in which it rises from 0
    normalize_rewards: bool = False  # over the deviation of the discounted return so far
    kl_coef: float = 0.0  # of the distance to a reference
    kl_half_life: float | None = None  # share of the run in which it halves; None: it stays
    kl_floor: float = 0.0  # that it does not fall below
    critic_only: bool = False  # the actor, and all it shares with the critic, stay as they are
    device: str = "cpu"

    def kl_coef_at(self, progress: float) -> float:
        """max(kl_floor, kl_coef 2^(-progress / kl_half_life))."""
        if self.kl_half_life is None:
            return self.kl_coef
        return max(self.kl_floor, self.kl_coef * 2 ** (-progress / self.kl_half_life))


@dataclass(frozen=True)
class PPOStats:
    """What one rollout's updates measured: means over them unless said otherwise."""

    loss: float
    policy_loss: float
    value_loss: float
    entropy: float  # nats
    entropy_std: float  # over updates
    approx_kl: float
    approx_kl_max: float
    clip_fraction: float
    clip_fraction_max: float
    clipped_batches: int  # with a ratio beyond the clip range
    grad_norm: float  # before clipping
    grad_norm_max: float
    explained_variance: float  # of the values the rollout was played with; NaN for constant returns
    advantage_mean: float
    advantage_std: float
    advantage_std_min: float  # of a batch
    flat_batches: int  # with no spread among their advantages
    reward_advantage_corr: float  # NaN when either is constant
    log_prob_mean: float  # of the actions when they were taken, nats
    reference_kl: float | None  # KL(reference || policy), nats; null without a reference
    kl_coef: float
    learning_rate: float
    clip_range: float
    n_updates: int
    n_epochs: int  # fewer than asked where target_kl ended them
    skipped_updates: int  # since the run began

    def line(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of it."""
        return vars(self)

    def shown(self) -> dict[str, float]:
        """What is worth watching while training goes on."""
        return {"kl": self.approx_kl, "explained": self.explained_variance}

    def telemetry(self) -> dict[str, float | None]:
        """The same under the names of Townlet's logs."""
        return {
            "loss_policy": self.policy_loss,
            "loss_value": self.value_loss,
            "loss_entropy": self.entropy,
            "loss_total": self.loss,
            "clip_fraction": self.clip_fraction,
            "clip_fraction_max": self.clip_fraction_max,
            "clip_triggered_minibatches": self.clipped_batches,
            "adv_mean": self.advantage_mean,
            "adv_std": self.advantage_std,
            "adv_min_std": self.advantage_std_min,
            "adv_zero_std_batches": self.flat_batches,
            "reward_advantage_corr": _defined(self.reward_advantage_corr),
            "baseline_log_prob_mean": self.log_prob_mean,
            "batch_entropy_mean": self.entropy,
            "batch_entropy_std": self.entropy_std,
            "grad_norm": self.grad_norm,
            "grad_norm_max": self.grad_norm_max,
            "kl_divergence": self.approx_kl,
            "kl_divergence_max": self.approx_kl_max,
            "reference_kl": self.reference_kl,
            "kl_coef": self.kl_coef,
            "explained_variance": _defined(self.explained_variance),
            "lr": self.learning_rate,
            "skipped_updates": self.skipped_updates,
        }


class PPOLearner(PolicyLearner):
    """One network that improves by what its actions brought; an equal `rng` gives equal weights, bit for bit."""

    def __init__(
        self,
        spec: NetworkSpec,
        settings: PPOSettings,
        rng: np.random.Generator,
        reference: ReferencePolicy | None = None,
    ) -> None:
        frozen = spec.actor_shapes() if settings.critic_only else ()
        super().__init__(spec, settings, rng, partial(FlatAdam, eps=ADAM_EPS), frozen)
        self.settings = settings
        self._rng, self._reference = rng, reference

    def learn(self, played: Played, progress: float, on_epoch: Callable[[], None] = lambda: None) -> PPOStats:
        """Learn from what this learner's actor played; as `update`."""
        reference = None if self._reference is None else self._reference.parameters(played)
        return self.update(evaluated(played, self.actor_critic), progress, on_epoch, reference)

    def update(
        self,
        rollout: Rollout,
        progress: float,
        on_epoch: Callable[[], None] = lambda: None,
        reference: NDArray[np.float32] | None = None,
    ) -> PPOStats:
        """Learn from one rollout; `progress` is the share of the run done before it, 0 to 1.

        `on_epoch` is called after every epoch and may raise. `reference` are the distributions to stay near,
        (n_parameters, n).

        Raises:
            TrainingError: losses or gradients stay non-finite although weights were restored; names the first array.
        """
        transitions, shaped_like = self._transitions(rollout, reference), rollout.values[:-1].ravel()
        rate = scheduled(self.settings.learning_rate, self.settings.learning_rate_schedule, progress)
        started_at, objective = rate * self.descent.rate_factor, self._objective(progress)
        measured: list[_Update] = []
        epoch, close = 0, True
        while epoch < self.settings.n_epochs and close:
            with np.errstate(over="ignore", invalid="ignore"):  # found by the descent, in every batch
                close = self._train_epoch(transitions, objective, rate, measured)
            epoch += 1
            on_epoch()
        self.descent.keep()
        table = np.array([[*losses, *rest] for losses, *rest in measured] or [[math.nan] * 9])
        mean, most = table.mean(axis=0).tolist(), table.max(axis=0).tolist()
        return PPOStats(
            loss=mean[0],
            policy_loss=mean[1],
            value_loss=mean[2],
            entropy=mean[3],
            entropy_std=float(table[:, 3].std()),
            approx_kl=mean[4],
            approx_kl_max=most[4],
            clip_fraction=mean[5],
            clip_fraction_max=most[5],
            clipped_batches=int(np.count_nonzero(table[:, 5] > 0)),
            grad_norm=mean[7],
            grad_norm_max=most[7],
            explained_variance=explained_variance(shaped_like, transitions.returns),
            advantage_mean=float(transitions.advantages.mean()),
            advantage_std=float(transitions.advantages.std()),
            advantage_std_min=float(table[:, 8].min()),
            flat_batches=int(np.count_nonzero(table[:, 8] < FLAT)),
            reward_advantage_corr=correlation(rollout.rewards, transitions.advantages),
            log_prob_mean=float(transitions.log_probs.mean(dtype=np.float64)),
            reference_kl=None if reference is None else mean[6],
            kl_coef=objective.kl_coef,
            learning_rate=started_at,
            clip_range=objective.clip_range,
            n_updates=len(measured),
            n_epochs=epoch,
            skipped_updates=self.descent.skipped_updates,
        )

    def _train_epoch(
        self, transitions: Transitions, objective: Objective, rate: float, measured: list[_Update]
    ) -> bool:
        """One pass in a new order; False when a batch was further from the rollout's policy than 1.5 target_kl."""
        shuffled = transitions.take(self._rng.permutation(len(transitions.returns)))
        target_kl = self.settings.target_kl
        deviations = batch_deviations(shuffled.advantages, self.settings.batch_size).tolist()
        for batch, deviation in zip(shuffled.batches(self.settings.batch_size), deviations, strict=True):
            losses = self.actor_critic.gradient(batch, objective)
            if target_kl is not None and losses.approx_kl > 1.5 * target_kl:
                return False
            grad_norm = self.descent.step(losses.loss, rate * self._warmth(), batch)
            if grad_norm is not None:
                measured.append(_Update(losses, grad_norm, deviation))
        return True

    def _warmth(self) -> float:
        """What the next update's learning rate is multiplied with, at the start of a run."""
        return min(1.0, (self.n_updates + 1) / max(1, self.settings.learning_rate_warmup))

    def _transitions(self, rollout: Rollout, reference: NDArray[np.float32] | None) -> Transitions:
        """The rollout with advantages, its time and slots as one axis."""
        advantages, returns = compute_gae(
            self.scaled_rewards(
                rollout.rewards, rollout.terminated | rollout.truncated, on_policy=rollout.on_policy
            ),
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
            reference=reference,
            actions=rollout.actions.reshape(n, *rollout.actions.shape[3:]),
            log_probs=rollout.log_probs.reshape(n),
            values=rollout.values[:-1].reshape(n),
            advantages=advantages.reshape(n),
            returns=returns.reshape(n),
        )

    def _objective(self, progress: float) -> Objective:
        s = self.settings
        clip_range = scheduled(s.clip_range, s.clip_range_schedule, progress)
        kl_coef = s.kl_coef_at(progress) if self._reference is not None else 0.0
        return Objective(clip_range, s.clip_range_vf, s.ent_coef, s.vf_coef, s.normalize_advantage, kl_coef)

    def adopt(self, state: Arrays | None, *, optimiser: bool = True) -> None:
        """Begin anew with the weights as they are; a critic that learns alone never knows another run's optimiser."""
        super().adopt(state, optimiser=optimiser and not self.settings.critic_only)


def _defined(value: float) -> float | None:
    """The value, or null where NaN says that there is none."""
    return None if math.isnan(value) else value


class _Update(NamedTuple):
    """What one optimiser step measured."""

    losses: Losses
    grad_norm: float
    advantage_std: float  # before normalisation
