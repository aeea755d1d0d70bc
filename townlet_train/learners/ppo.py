"""Proximal policy optimisation (Schulman et al. 2017) with the knobs and defaults of Stable-Baselines3.

One update: advantages, then some epochs over the rollout in shuffled batches; each batch is one gradient, clipped, and
one step of Adam on a single vector. What is not finite never reaches the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from townlet_train.data.checkpoint import Arrays
from townlet_train.learners.actor_critic import Lesson
from townlet_train.learners.advantages import compute_gae, explained_variance
from townlet_train.learners.devices import ON_CPU, Placement
from townlet_train.learners.learner import CommonSettings, PolicyLearner, Schedule, scheduled
from townlet_train.learners.optimisers import FlatAdam
from townlet_train.learners.reference import ReferencePolicy
from townlet_train.learners.rollouts import Played, Rollout, evaluated
from townlet_train.learners.surrogate import Float, Losses, Objective, Transitions
from townlet_train.learners.telemetry import batch_deviations, correlation
from townlet_train.policies.network import NetworkSpec

ADAM_EPS = 1e-5
TOWNLET_NAMES = {
    "loss_policy": "policy_loss",
    "loss_value": "value_loss",
    "loss_entropy": "entropy",
    "loss_total": "loss",
    "clip_fraction": "clip_fraction",
    "clip_fraction_max": "clip_fraction_max",
    "clip_triggered_minibatches": "clipped_batches",
    "adv_mean": "advantage_mean",
    "adv_std": "advantage_std",
    "adv_min_std": "advantage_std_min",
    "adv_zero_std_batches": "flat_batches",
    "reward_advantage_corr": "reward_advantage_corr",
    "baseline_log_prob_mean": "log_prob_mean",
    "batch_entropy_mean": "entropy",
    "batch_entropy_std": "entropy_std",
    "grad_norm": "grad_norm",
    "grad_norm_max": "grad_norm_max",
    "kl_divergence": "approx_kl",
    "kl_divergence_max": "approx_kl_max",
    "reference_kl": "reference_kl",
    "kl_coef": "kl_coef",
    "explained_variance": "explained_variance",
    "lr": "learning_rate",
    "skipped_updates": "skipped_updates",
}
UNDEFINED_AS_NULL = ("reward_advantage_corr", "explained_variance")  # where something is constant
FLAT = 1e-8  # advantages of a batch that deviate less are all alike


class PPOSettings(CommonSettings, Protocol):
    """How to improve, under Stable-Baselines3's names; the params of `ppo` are such settings, with its defaults."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def n_epochs(self) -> int: ...
    @property
    def gae_lambda(self) -> float: ...
    @property
    def clip_range(self) -> float: ...
    @property
    def clip_range_vf(self) -> float | None: ...
    @property
    def ent_coef(self) -> float: ...
    @property
    def vf_coef(self) -> float: ...
    @property
    def target_kl(self) -> float | None: ...
    @property
    def normalize_advantage(self) -> bool: ...
    @property
    def learning_rate_schedule(self) -> Schedule: ...
    @property
    def clip_range_schedule(self) -> Schedule: ...
    @property
    def learning_rate_warmup(self) -> int: ...
    @property
    def kl_coef(self) -> float: ...
    @property
    def kl_half_life(self) -> float | None: ...
    @property
    def kl_floor(self) -> float: ...
    @property
    def critic_only(self) -> bool: ...


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
        known = {theirs: getattr(self, ours) for theirs, ours in TOWNLET_NAMES.items()}
        return known | {name: None for name in UNDEFINED_AS_NULL if math.isnan(known[name])}


class PPOLearner(PolicyLearner):
    """One network that improves by what its actions brought; an equal `rng` gives equal weights, bit for bit."""

    def __init__(
        self,
        spec: NetworkSpec,
        settings: PPOSettings,
        rng: np.random.Generator,
        placement: Placement = ON_CPU,
        reference: ReferencePolicy | None = None,
    ) -> None:
        frozen = spec.actor_shapes() if settings.critic_only else ()
        super().__init__(spec, settings, rng, partial(FlatAdam, eps=ADAM_EPS), placement, frozen)
        self.settings = settings
        self._rng, self._reference = rng, reference

    def learn(self, played: Played, progress: float, on_epoch: Callable[[], None] = lambda: None) -> PPOStats:
        """Learn from what this learner's actor played; as `update`. Of what was recorded no distances are known."""
        near = self._reference if played.on_policy else None
        distributions = None if near is None else near.parameters(played)
        return self.update(evaluated(played, self.actor_critic), progress, on_epoch, distributions)

    def adopt(self, state: Arrays | None, *, optimiser: bool = True) -> None:
        """Begin anew with the weights as they are; a critic that learns alone never knows another run's optimiser."""
        super().adopt(state, optimiser=optimiser and not self.settings.critic_only)

    def update(
        self,
        rollout: Rollout,
        progress: float,
        on_epoch: Callable[[], None] = lambda: None,
        reference: Float | None = None,
    ) -> PPOStats:
        """Learn from one rollout; `progress` is the share of the run done before it, 0 to 1.

        `on_epoch` is called after every epoch and may raise. `reference` are the distributions to stay near,
        (n_parameters, n).

        Raises:
            TrainingError: losses or gradients stay non-finite although weights were restored; names the first array.
        """
        transitions = self._transitions(rollout, reference)
        rate = scheduled(self.settings.learning_rate, self.settings.learning_rate_schedule, progress)
        started_at, objective = rate * self.descent.rate_factor, self._objective(progress)
        lesson, measured = self.actor_critic.lesson(transitions), list[_Update]()
        epoch, close = 0, True
        while epoch < self.settings.n_epochs and close:
            with np.errstate(over="ignore", invalid="ignore"):  # found by the descent, in every batch
                close = self._train_epoch(lesson, transitions.advantages, objective, rate, measured)
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
            explained_variance=explained_variance(transitions.values, transitions.returns),
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
        self, lesson: Lesson, advantages: Float, objective: Objective, rate: float, measured: list[_Update]
    ) -> bool:
        """One pass in a new order; False when a batch was further from the rollout's policy than 1.5 target_kl."""
        order, batch_size = self._rng.permutation(len(advantages)), self.settings.batch_size
        target_kl = self.settings.target_kl
        deviations = batch_deviations(advantages[order], batch_size).tolist()
        gradients = lesson.gradients(order, batch_size, objective)
        for (losses, norm, batch), deviation in zip(gradients, deviations, strict=True):
            if target_kl is not None and losses.approx_kl > 1.5 * target_kl:
                return False
            grad_norm = self.descent.step(losses.loss, rate * self._warmth(), batch, norm)
            if grad_norm is not None:
                measured.append(_Update(losses, grad_norm, deviation))
        return True

    def _warmth(self) -> float:
        """What the next update's learning rate is multiplied with, at the start of a run."""
        return min(1.0, (self.n_updates + 1) / max(1, self.settings.learning_rate_warmup))

    def _transitions(self, rollout: Rollout, reference: Float | None) -> Transitions:
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
        kl_coef = 0.0 if self._reference is None else kl_coef_at(s, progress)
        return Objective(clip_range, s.clip_range_vf, s.ent_coef, s.vf_coef, s.normalize_advantage, kl_coef)


def kl_coef_at(settings: PPOSettings, progress: float) -> float:
    """max(kl_floor, kl_coef 2^(-progress / kl_half_life)); without a half-life it stays."""
    if settings.kl_half_life is None:
        return settings.kl_coef
    return max(settings.kl_floor, settings.kl_coef * 2 ** (-progress / settings.kl_half_life))


class _Update(NamedTuple):
    """What one optimiser step measured."""

    losses: Losses
    grad_norm: float
    advantage_std: float  # before normalisation
