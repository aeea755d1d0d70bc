"""PPO's objective for one batch, and its slope with respect to what the network put out.

    L = -mean min(r A, clip(r, 1 - e, 1 + e) A) + vf_coef mean (V - R)^2 - ent_coef mean H + kl_coef mean KL(p_ref || p)

(Schulman et al. 2017, equations 7 and 9; the last term: Schmitt et al. 2018, section 3), r the ratio of the action's
probability now to when it was taken. Arrays of outputs are (n_outputs, n), outputs first, so that reductions over a few
outputs run along memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_train.policies.network import ILLEGAL_LOGIT

Float = NDArray[np.float32]
Actions = NDArray[Any]  # (n,) indices, or (n, n_dimensions) real numbers
LOG_2_PI = math.log(2 * math.pi)


class Transitions(NamedTuple):
    """Steps to learn from, their features standardised already; the learner keeps them in one order, time forgotten."""

    features: Float  # (n, n_features)
    maps: NDArray[np.uint8] | None  # (n, channels, height, width)
    illegal: NDArray[np.bool_] | None  # (n_actions, n); None when every action of every row is legal
    reference: Float | None  # (n_parameters, n): the distributions to stay near, where there are such
    actions: Actions
    log_probs: Float  # (n,) of the actions, when they were taken
    values: Float  # (n,) expected when they were taken
    advantages: Float  # (n,)
    returns: Float  # (n,)

    def take(self, rows: NDArray[np.int64]) -> Transitions:
        """Copies of some rows."""
        maps = None if self.maps is None else self.maps[rows]
        illegal = None if self.illegal is None else np.ascontiguousarray(self.illegal[:, rows])
        reference = None if self.reference is None else np.ascontiguousarray(self.reference[:, rows])
        rest = (array[rows] for array in self[4:])
        return Transitions(self.features[rows], maps, illegal, reference, *rest)

    def batches(self, batch_size: int) -> Iterator[Transitions]:
        """Views of consecutive rows; the last may be shorter."""
        for start in range(0, len(self.returns), batch_size):
            rows = slice(start, start + batch_size)
            maps = None if self.maps is None else self.maps[rows]
            illegal = None if self.illegal is None else self.illegal[:, rows]
            reference = None if self.reference is None else self.reference[:, rows]
            rest = (array[rows] for array in self[4:])
            yield Transitions(self.features[rows], maps, illegal, reference, *rest)


class Objective(NamedTuple):
    """The coefficients of the moment."""

    clip_range: float
    clip_range_vf: float | None
    ent_coef: float
    vf_coef: float
    normalize_advantage: bool
    kl_coef: float = 0.0  # of the distance to the reference


class Losses(NamedTuple):
    """What one batch measured, before the step it leads to."""

    loss: float  # what is descended
    policy_loss: float
    value_loss: float
    entropy: float  # nats
    approx_kl: float  # k3: mean of (r - 1) - ln r
    clip_fraction: float
    reference_kl: float = 0.0  # KL(p_ref || p), nats; 0 without a reference


class Distribution(Protocol):
    """Actions as the network's outputs (n_outputs, n) make them likely."""

    def log_probs(self, actions: Actions) -> Float:
        """(n,)"""
        ...

    def entropy(self) -> Float:
        """(n,), nats"""
        ...

    def parameters(self) -> Float:
        """What another distribution needs to know of this one to tell how far it is, (n_parameters, n)."""
        ...

    def kl_from(self, reference: Float) -> Float:
        """KL(reference || self), (n,), nats; of the `parameters` of a reference."""
        ...

    def gradient(self, actions: Actions, of_log_prob: Float, of_entropy: float) -> Float:
        """Slope of `sum(of_log_prob * log_probs) + of_entropy * sum(entropy)` in the outputs, (n_outputs, n)."""
        ...

    def kl_gradient(self, reference: Float, of_kl: float) -> Float:
        """Slope of `of_kl * sum(kl_from(reference))` in the outputs, (n_outputs, n); to be asked after `gradient`."""
        ...


class Categorical:
    """One of several actions; overwrites the logits it is given."""

    def __init__(self, logits: Float, illegal: NDArray[np.bool_] | None) -> None:
        if illegal is not None:
            np.copyto(logits, np.float32(ILLEGAL_LOGIT), where=illegal)
        logits -= np.maximum.reduce(logits)
        probabilities = np.exp(logits)
        totals = np.add.reduce(probabilities)
        probabilities /= totals
        logits -= np.log(totals)
        self._logs, self._probabilities = logits, probabilities
        self._rows = np.arange(logits.shape[1])
        self._entropy: Float | None = None

    def log_probs(self, actions: Actions) -> Float:
        return self._logs[actions, self._rows]

    def entropy(self) -> Float:
        if self._entropy is None:
            self._entropy = -(self._probabilities * self._logs).sum(axis=0)
        return self._entropy

    def gradient(self, actions: Actions, of_log_prob: Float, of_entropy: float) -> Float:
        """d ln p_a / dz = onehot(a) - p; dH / dz = -p (ln p + H)."""
        slope = -of_log_prob if of_entropy == 0 else -of_log_prob - of_entropy * (self._logs + self.entropy())
        gradient: Float = self._probabilities * slope
        gradient[actions, self._rows] += of_log_prob
        return gradient

    def parameters(self) -> Float:
        return self._logs

    def kl_from(self, reference: Float) -> Float:
        return np.asarray((np.exp(reference) * (reference - self._logs)).sum(axis=0), np.float32)

    def kl_gradient(self, reference: Float, of_kl: float) -> Float:
        """dKL / dz = p - p_ref."""
        gradient: Float = (self._probabilities - np.exp(reference)) * np.float32(of_kl)
        return gradient


class DiagonalGaussian:
    """Real-valued actions around a mean, one deviation per dimension; also finds the slope in `log_std`."""

    def __init__(self, mean: Float, log_std: Float, log_std_gradient: Float) -> None:
        self._mean, self._log_std = mean, log_std.copy()  # the learner moves its own while this is asked
        self._log_std_gradient = log_std_gradient
        self._inverse_std = np.exp(-log_std)[:, None]

    def log_probs(self, actions: Actions) -> Float:
        standardised = (actions.T - self._mean) * self._inverse_std
        constant = self._log_std.sum() + len(self._log_std) * LOG_2_PI / 2
        return np.asarray(-0.5 * np.square(standardised).sum(axis=0) - constant, np.float32)

    def entropy(self) -> Float:
        n_dimensions, n = self._mean.shape
        return np.full(n, self._log_std.sum() + n_dimensions * (LOG_2_PI + 1) / 2, np.float32)

    def gradient(self, actions: Actions, of_log_prob: Float, of_entropy: float) -> Float:
        """With s = (a - mean) / std: d ln p / d mean = s / std, d ln p / d log_std = s^2 - 1, dH / d log_std = 1."""
        standardised = (actions.T - self._mean) * self._inverse_std
        n = standardised.shape[1]
        self._log_std_gradient[:] = (np.square(standardised) - 1) @ of_log_prob + of_entropy * n
        gradient: Float = standardised * self._inverse_std * of_log_prob
        return gradient

    def parameters(self) -> Float:
        spread = np.broadcast_to(self._log_std[:, None], self._mean.shape)
        return np.concatenate([self._mean, spread])

    def kl_from(self, reference: Float) -> Float:
        """sum ln(std / std_ref) + (std_ref^2 + (mean_ref - mean)^2) / (2 std^2) - 1 / 2."""
        mean, log_std = np.split(reference, 2)
        squares = self._squares_from(mean, log_std)
        return np.asarray((self._log_std[:, None] - log_std + squares / 2 - 0.5).sum(axis=0), np.float32)

    def kl_gradient(self, reference: Float, of_kl: float) -> Float:
        """dKL / d mean = (mean - mean_ref) / std^2; dKL / d log_std = 1 - (std_ref^2 + (mean_ref - mean)^2) / std^2."""
        mean, log_std = np.split(reference, 2)
        self._log_std_gradient += np.float32(of_kl) * (1 - self._squares_from(mean, log_std)).sum(axis=1)
        gradient: Float = (self._mean - mean) * np.square(self._inverse_std) * np.float32(of_kl)
        return gradient

    def _squares_from(self, mean: Float, log_std: Float) -> Float:
        squares: Float = (np.exp(2 * log_std) + np.square(mean - self._mean)) * np.square(self._inverse_std)
        return squares


def differentiate(
    distribution: Distribution, values: Float, batch: Transitions, objective: Objective
) -> tuple[Losses, Float, Float]:
    """The losses, and the slope of their sum in the network's outputs (n_outputs, n) and values (n,)."""
    n = len(values)
    log_ratio = distribution.log_probs(batch.actions) - batch.log_probs
    ratio = np.exp(log_ratio)
    advantages = normalised(batch.advantages) if objective.normalize_advantage else batch.advantages
    free = ratio * advantages
    clipped = np.clip(ratio, 1 - objective.clip_range, 1 + objective.clip_range) * advantages
    policy_loss = -np.minimum(free, clipped).sum() / n
    of_log_prob = np.where(free <= clipped, free, np.float32(0)) * np.float32(-1 / n)

    change = values - batch.values
    limit = objective.clip_range_vf
    errors = (values if limit is None else batch.values + np.clip(change, -limit, limit)) - batch.returns
    value_loss = np.dot(errors, errors) / n
    of_values = errors * np.float32(2 * objective.vf_coef / n)
    if limit is not None:
        of_values *= np.abs(change) <= limit

    entropy = distribution.entropy().sum() / n
    reference_kl = 0.0 if batch.reference is None else distribution.kl_from(batch.reference).sum() / n
    losses = Losses(
        loss=float(
            policy_loss
            + objective.vf_coef * value_loss
            - objective.ent_coef * entropy
            + objective.kl_coef * reference_kl
        ),
        policy_loss=float(policy_loss),
        value_loss=float(value_loss),
        entropy=float(entropy),
        approx_kl=float((ratio - 1 - log_ratio).sum() / n),
        clip_fraction=float(np.count_nonzero(np.abs(ratio - 1) > objective.clip_range) / n),
        reference_kl=float(reference_kl),
    )
    of_outputs = distribution.gradient(batch.actions, of_log_prob, -objective.ent_coef / n)
    if batch.reference is not None and objective.kl_coef:
        of_outputs += distribution.kl_gradient(batch.reference, objective.kl_coef / n)
    return losses, of_outputs, of_values


def normalised(advantages: Float) -> Float:
    """Mean 0, deviation 1 (with n - 1, as Stable-Baselines3 has it); a single advantage is left as it is."""
    n = len(advantages)
    if n < 2:
        return advantages
    centred: Float = advantages - advantages.sum() / np.float32(n)
    deviation = math.sqrt(float(np.dot(centred, centred)) / (n - 1))
    centred /= np.float32(deviation + 1e-8)
    return centred
