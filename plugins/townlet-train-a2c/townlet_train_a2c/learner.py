"""Advantage actor-critic (Mnih et al. 2016, without the asynchrony): one gradient for every few steps of all slots.

L = -mean A ln p(a) + vf_coef mean (V - R)^2 - ent_coef mean H
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_train.learners.advantages import compute_gae, explained_variance
from townlet_train.learners.devices import ON_CPU, Placement
from townlet_train.learners.learner import CommonSettings, PolicyLearner, Schedule, scheduled
from townlet_train.learners.networks import NetworkSpec
from townlet_train.learners.optimisers import FlatAdam
from townlet_train.learners.rollouts import Played
from townlet_train.learners.surrogate import Distribution, normalised

Float = NDArray[np.float32]
DECAY = 0.99  # of the squared gradients' running mean, as in Stable-Baselines3 and torch
LONG = 1e9  # steps, after which corrections for the start are 1
UPDATES_BETWEEN_KEEPS = 16  # of the weights that come back when nothing is finite any more


class A2CSettings(CommonSettings, Protocol):
    """How to improve, under Stable-Baselines3's names; the params of `a2c` are such settings, with its defaults."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def gae_lambda(self) -> float: ...
    @property
    def ent_coef(self) -> float: ...
    @property
    def vf_coef(self) -> float: ...
    @property
    def rms_prop_eps(self) -> float: ...
    @property
    def normalize_advantage(self) -> bool: ...
    @property
    def learning_rate_schedule(self) -> Schedule: ...


@dataclass(frozen=True)
class A2CStats:
    """What an update measured, before the step it led to."""

    loss: float
    policy_loss: float
    value_loss: float
    entropy: float  # nats
    grad_norm: float  # before clipping; NaN when the update was skipped
    explained_variance: float  # of the rollout's returns by its values; NaN for constant returns
    advantage_mean: float
    advantage_std: float
    learning_rate: float
    skipped_updates: int  # since the run began


class A2CUpdate(NamedTuple):
    """One update; what nobody may ask for is worked out when somebody does."""

    loss: float
    policy_loss: float
    value_loss: float
    grad_norm: float | None
    learning_rate: float
    skipped_updates: int
    distribution: Distribution
    values: Float  # (n,), as advantages and returns
    advantages: Float
    returns: Float

    def stats(self) -> A2CStats:
        """Everything that was measured."""
        return A2CStats(
            loss=self.loss,
            policy_loss=self.policy_loss,
            value_loss=self.value_loss,
            entropy=float(self.distribution.entropy().mean()),
            grad_norm=float("nan") if self.grad_norm is None else self.grad_norm,
            explained_variance=explained_variance(self.values, self.returns),
            advantage_mean=float(self.advantages.mean()),
            advantage_std=float(self.advantages.std()),
            learning_rate=self.learning_rate,
            skipped_updates=self.skipped_updates,
        )

    def line(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of it."""
        return vars(self.stats())

    def shown(self) -> dict[str, float]:
        """What is worth watching while training goes on."""
        return {"loss": self.loss}

    def telemetry(self) -> dict[str, float | None]:
        """The same under the names of Townlet's logs."""
        stats = self.stats()
        return {
            "loss_policy": stats.policy_loss,
            "loss_value": stats.value_loss,
            "loss_entropy": stats.entropy,
            "loss_total": stats.loss,
            "adv_mean": stats.advantage_mean,
            "adv_std": stats.advantage_std,
            "grad_norm": stats.grad_norm,
            "explained_variance": None if isnan(stats.explained_variance) else stats.explained_variance,
            "lr": stats.learning_rate,
            "skipped_updates": stats.skipped_updates,
        }


class A2CLearner(PolicyLearner):
    """One network that improves with every rollout; an equal `rng` gives equal weights, bit for bit."""

    def __init__(
        self,
        spec: NetworkSpec,
        settings: A2CSettings,
        rng: np.random.Generator,
        placement: Placement = ON_CPU,
    ) -> None:
        # RMSProp (Tieleman and Hinton 2012) is Adam without momentum, long after its start.
        rms_prop = partial(FlatAdam, eps=settings.rms_prop_eps, betas=(0.0, DECAY), steps=LONG)
        super().__init__(spec, settings, rng, rms_prop, placement)
        self.settings = settings

    def learn(
        self, played: Played, progress: float, on_epoch: Callable[[], None] = lambda: None
    ) -> A2CUpdate:
        """One gradient of what this learner's actor played; `progress` is the share of the run done before it, 0 to 1.

        Raises:
            TrainingError: nothing is finite although weights were restored; names the first array that is not.
        """
        s, n = self.settings, played.rewards.size
        rate = scheduled(s.learning_rate, s.learning_rate_schedule, progress)
        started_at = rate * self.descent.rate_factor
        with np.errstate(over="ignore", invalid="ignore"):  # found by the descent
            outputs, all_values, backward = self.actor_critic.forward(*_rows(played))
            advantages, returns = self._advantages(played, all_values)
            distribution = self.actor_critic.distribution(outputs[:, :n], _illegal(played))
            actions = played.actions.reshape(n, *played.actions.shape[3:])
            weights = normalised(advantages) if s.normalize_advantage else advantages
            errors = all_values[:n] - returns
            policy_loss = -float(np.dot(weights, distribution.log_probs(actions))) / n
            value_loss = float(np.dot(errors, errors)) / n
            loss = policy_loss + s.vf_coef * value_loss
            if s.ent_coef:
                loss -= s.ent_coef * float(distribution.entropy().mean())
            of_outputs = distribution.gradient(actions, weights * np.float32(-1 / n), -s.ent_coef / n)
            backward(of_outputs, errors * np.float32(2 * s.vf_coef / n))
        grad_norm = self.descent.step(loss, rate, played)
        if self.descent.n_updates % UPDATES_BETWEEN_KEEPS == 0:
            self.descent.keep()
        return A2CUpdate(
            loss,
            policy_loss,
            value_loss,
            grad_norm,
            started_at,
            self.descent.skipped_updates,
            distribution,
            all_values[:n],
            advantages,
            returns,
        )

    def _advantages(self, played: Played, values: Float) -> tuple[Float, Float]:
        """Advantages and returns, (n,) each, of values (n_steps + 1 times the slots,)."""
        rewards, terminated, truncated = played.rewards, played.terminated, played.truncated
        advantages, returns = compute_gae(
            self.scaled_rewards(rewards, terminated | truncated),
            values.reshape(-1, *rewards.shape[1:]),
            terminated,
            truncated,
            played.final_values(self.actor_critic),
            self.settings.gamma,
            self.settings.gae_lambda,
        )
        return advantages.ravel(), returns.ravel()


def _rows(played: Played) -> tuple[Float, NDArray[np.uint8] | None]:
    """Everything seen, time and slots as one axis."""
    features, maps = played.features, played.maps
    return features.reshape(-1, features.shape[-1]), None if maps is None else maps.reshape(
        -1, *maps.shape[3:]
    )


def _illegal(played: Played) -> NDArray[np.bool_] | None:
    """What was illegal in each of the n steps, (n_actions, n)."""
    illegal = played.illegal
    return None if illegal is None else illegal.reshape(-1, illegal.shape[-1]).T
