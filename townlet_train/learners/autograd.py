"""The actor-critic of any network on any device: the objective as torch reads it, compiled where that pays.

A rollout is put on the device once per update and gathered there once per epoch; batches are views of that. What a
batch measured, the norm of its gradient included, is read back in one go.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from townlet_train.learners.actor_critic import Forward, Gradient, Lesson
from townlet_train.learners.devices import Precision, reason_of
from townlet_train.learners.networks import FlatParameters, PolicyNetwork
from townlet_train.learners.surrogate import (
    LOG_2_PI,
    Categorical,
    DiagonalGaussian,
    Distribution,
    Float,
    Losses,
    Objective,
    Transitions,
)
from townlet_train.policies.network import ILLEGAL_LOGIT, LOG_STD

Maps = NDArray[np.uint8] | None
Measure = Callable[..., tuple[Tensor, Tensor]]
Compiler = Callable[[Measure], Measure]
logger = logging.getLogger(__name__)

# One graph of everything a gradient takes, replayed for every batch of its shape.
captured: Compiler = partial(torch.compile, mode="reduce-overhead", fullgraph=True, dynamic=False)


class Rows(NamedTuple):
    """Transitions as tensors on one device, rows first."""

    features: Tensor  # (n, n_features)
    maps: Tensor | None  # (n, channels, height, width)
    illegal: Tensor | None  # (n, n_actions)
    reference: Tensor | None  # (n, n_parameters)
    actions: Tensor  # (n,) indices, or (n, n_dimensions)
    log_probs: Tensor  # (n,), as the rest
    values: Tensor
    advantages: Tensor
    returns: Tensor

    @classmethod
    def of(cls, transitions: Transitions, device: torch.device) -> Rows:
        """Transitions put on a device."""
        illegal = None if transitions.illegal is None else transitions.illegal.T
        reference = None if transitions.reference is None else transitions.reference.T
        rows_first = transitions._replace(illegal=illegal, reference=reference)
        return cls(*(_tensor(array, device) for array in rows_first))

    def take(self, order: Tensor) -> Rows:
        """Copies of some rows."""
        return Rows(*(_picked(tensor, order) for tensor in self))

    def batches(self, batch_size: int) -> Iterator[Rows]:
        """Views of consecutive rows; the last may be shorter."""
        for start in range(0, len(self.returns), batch_size):
            rows = slice(start, start + batch_size)
            yield Rows(*(_picked(tensor, rows) for tensor in self))


class AutogradActorCritic:
    """Any network on any device.

    Given a `compiler`, full batches take the compiled way; the short last one of an epoch is not worth compiling for.
    """

    def __init__(
        self,
        network: PolicyNetwork,
        parameters: FlatParameters,
        *,
        precision: Precision = "float32",
        compiler: Compiler | None = None,
    ) -> None:
        self._heads = _Heads(network, precision)
        self._parameters, self._device = parameters, parameters.vector.device
        self._log_std_slope = np.zeros(len(parameters.values.get(LOG_STD, ())), np.float32)
        self._compiled = None if compiler is None else compiler(_differentiation(self._heads, parameters))

    @property
    def log_std(self) -> Float | None:
        log_std = self._parameters.values.get(LOG_STD)
        return None if log_std is None else log_std.cpu().numpy()

    def outputs(self, features: Float, maps: Maps) -> Float:
        return self.evaluate(features, maps)[0].T

    def evaluate(self, features: Float, maps: Maps) -> tuple[Float, Float]:
        with torch.no_grad():
            return self._read(*self._forward(features, maps))

    def distribution(self, outputs: Float, illegal: NDArray[np.bool_] | None) -> Distribution:
        log_std = self.log_std
        if log_std is None:
            return Categorical(outputs, illegal)
        return DiagonalGaussian(outputs, log_std, self._log_std_slope)

    def forward(self, features: Float, maps: Maps) -> Forward:
        outputs, values = self._forward(features, maps)

        def backward(of_outputs: Float, of_values: Float) -> None:
            m = len(of_values)
            self._parameters.gradient.zero_()
            slopes = [_tensor(slope, self._device) for slope in (of_outputs.T, of_values)]
            torch.autograd.backward([outputs[:m], values[:m]], slopes)
            if LOG_STD in self._parameters.gradients:
                self._parameters.gradients[LOG_STD].copy_(torch.from_numpy(self._log_std_slope))

        return Forward(*self._read(outputs.detach(), values.detach()), backward)

    def lesson(self, transitions: Transitions) -> Lesson:
        return _DeviceLesson(Rows.of(transitions, self._device), self.learn)

    def learn(
        self, batch: Rows, objective: Objective, coefficients: Tensor, *, compiled: bool = True
    ) -> list[float]:
        """Fill the flat gradient; returns what `Losses` names, then the gradient's norm."""
        clips_values, normalises = objective.clip_range_vf is not None, objective.normalize_advantage
        if compiled and self._compiled is not None:
            try:
                gradient, measured = self._compiled(
                    self._parameters.vector, batch, coefficients, clips_values, normalises
                )
            except Exception as error:  # each stage of compilation says no with an error of its own
                self._compiled = None
                logger.warning(
                    "Updates cannot be compiled here (%s); slower, learning goes on.", reason_of(error)
                )
            else:
                self._parameters.gradient.copy_(gradient)
                return _list(measured)
        self._parameters.gradient.zero_()
        outputs, values = self._heads(batch.features, batch.maps)
        log_std: Tensor | None = getattr(self._heads.network, LOG_STD, None)
        loss, measured = surrogate(outputs, values, log_std, batch, coefficients, clips_values, normalises)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        return _list(torch.cat([measured, self._parameters.gradient.norm()[None]]))

    def _forward(self, features: Float, maps: Maps) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self._heads(
            _tensor(features, self._device), _tensor(maps, self._device)
        )
        return found

    @staticmethod
    def _read(outputs: Tensor, values: Tensor) -> tuple[Float, Float]:
        """Outputs (n_outputs, n) and values (n,), read from the device in one go."""
        both = torch.cat([outputs.t(), values[None]]).cpu().numpy()
        return both[:-1], both[-1]


class _DeviceLesson:
    """Transitions that lie where their network is."""

    def __init__(self, rows: Rows, learn: Callable[..., list[float]]) -> None:
        self._rows, self._learn = rows, learn

    def gradients(
        self, order: NDArray[np.int64], batch_size: int, objective: Objective
    ) -> Iterator[Gradient]:
        device = self._rows.returns.device
        coefficients = coefficients_of(objective, device)
        for batch in self._rows.take(torch.from_numpy(order).to(device)).batches(batch_size):
            full = len(batch.returns) == batch_size
            *losses, norm = self._learn(batch, objective, coefficients, compiled=full)
            yield Gradient(Losses(*losses), norm, batch)


class _Heads(nn.Module):
    """A network's heads as a module's `forward`, computed at some precision; what they put out is float32."""

    def __init__(self, network: PolicyNetwork, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self._narrow = precision == "bfloat16"

    def forward(self, features: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self._narrow:
            return self.network.heads(features, maps)
        with torch.autocast(features.device.type, torch.bfloat16):
            outputs, values = self.network.heads(features, maps)
        return outputs.float(), values.float()


def _differentiation(heads: _Heads, parameters: FlatParameters) -> Measure:
    """The gradient of the objective, and what was measured, as a function of tensors that changes nothing."""

    def objective(
        vector: Tensor, batch: Rows, coefficients: Tensor, clips_values: bool, normalises: bool
    ) -> tuple[Tensor, Tensor]:
        weights = parameters.views(vector)
        named = {f"network.{name}": weight for name, weight in weights.items()}
        outputs, values = torch.func.functional_call(heads, named, (batch.features, batch.maps))
        return surrogate(outputs, values, weights.get(LOG_STD), batch, coefficients, clips_values, normalises)

    def differentiated(vector: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        gradient, (_, measured) = torch.func.grad_and_value(objective, has_aux=True)(vector, *rest)
        return gradient, torch.cat([measured, gradient.norm()[None]])

    # What is compiled is kept with the code, a few versions of it; each network's is code of its own.
    differentiated.__code__ = differentiated.__code__.replace()
    return differentiated


def coefficients_of(objective: Objective, device: torch.device) -> Tensor:
    """The numbers of an objective, (5,): as a tensor, so that none is compiled in."""
    o = objective
    numbers = o.clip_range, o.clip_range_vf or math.inf, o.ent_coef, o.vf_coef, o.kl_coef
    return torch.tensor(numbers, device=device)


def surrogate(
    outputs: Tensor,
    values: Tensor,
    log_std: Tensor | None,
    batch: Rows,
    coefficients: Tensor,
    clips_values: bool,
    normalises: bool,
) -> tuple[Tensor, Tensor]:
    """The objective of `surrogate` for outputs (n, n_outputs) and values (n,); beside it the `Losses`, (7,)."""
    clip_range, clip_range_vf, ent_coef, vf_coef, kl_coef = coefficients.unbind()
    log_probs, entropies = _log_probs_and_entropies(outputs, log_std, batch)
    advantages = batch.advantages
    if normalises and len(advantages) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    log_ratio = log_probs - batch.log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -torch.min(ratio * advantages, clipped * advantages).mean()
    if clips_values:
        values = batch.values + (values - batch.values).clamp(-clip_range_vf, clip_range_vf)
    value_loss, entropy = (values - batch.returns).square().mean(), entropies.mean()
    reference_kl = _kl_from_reference(outputs, log_std, batch)
    loss = policy_loss + vf_coef * value_loss - ent_coef * entropy + kl_coef * reference_kl
    approx_kl = (ratio - 1 - log_ratio).mean()
    clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
    measured = loss, policy_loss, value_loss, entropy, approx_kl, clip_fraction, reference_kl
    return loss, torch.stack(measured).detach()


def _log_probs_and_entropies(outputs: Tensor, log_std: Tensor | None, batch: Rows) -> tuple[Tensor, Tensor]:
    """Of each row's action and distribution, (n,) each; nats."""
    if log_std is not None:
        entropy = log_std.sum() + len(log_std) * (LOG_2_PI + 1) / 2
        return gaussian_log_probs(outputs, log_std, batch.actions), entropy.expand(len(outputs))
    logs = _logs(outputs, batch.illegal)
    return logs.gather(1, batch.actions[:, None]).squeeze(1), -(logs.exp() * logs).sum(dim=1)


def gaussian_log_probs(mean: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
    """Of vectors (n, n_dimensions) around a mean, (n,); nats."""
    standardised = (actions - mean) * (-log_std).exp()
    return -0.5 * (standardised.square() + LOG_2_PI).sum(dim=1) - log_std.sum()


def _kl_from_reference(outputs: Tensor, log_std: Tensor | None, batch: Rows) -> Tensor:
    """Mean KL(reference || policy), nats; 0 without a reference."""
    if batch.reference is None:
        return outputs.new_zeros(())
    if log_std is None:
        logs = _logs(outputs, batch.illegal)
        return (batch.reference.exp() * (batch.reference - logs)).sum(dim=1).mean()
    mean, reference_log_std = batch.reference.chunk(2, dim=1)
    squares = ((2 * reference_log_std).exp() + (mean - outputs).square()) / (2 * log_std).exp()
    return (log_std - reference_log_std + squares / 2 - 0.5).sum(dim=1).mean()


def _logs(outputs: Tensor, illegal: Tensor | None) -> Tensor:
    """Log-probabilities of actions, (n, n_actions)."""
    legal = outputs if illegal is None else outputs.masked_fill(illegal, ILLEGAL_LOGIT)
    return legal.log_softmax(dim=1)


def _tensor(array: NDArray[Any] | None, device: torch.device) -> Any:
    """An array on a device, or the None it may be."""
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _picked(tensor: Tensor | None, rows: Tensor | slice) -> Any:
    """Some rows of what may be None."""
    return None if tensor is None else tensor[rows]


def _list(measured: Tensor) -> list[float]:
    found: list[float] = measured.tolist()
    return found
