"""An actor and its critic: what they put out, and the gradient of PPO's objective in every weight.

Written out in NumPy for the MLP, on the memory of torch's flat vectors, because for a few thousand weights the
bookkeeping of autograd costs several times the arithmetic; by autograd for a network without code of its own here or in
`conflict_aware`. A test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.learners.lanes import TwoLanes, piece_rows
from townlet_train.learners.mlp_lane import ACTOR, CRITIC, MlpArrays, MlpLane
from townlet_train.learners.networks import FlatParameters, PolicyNetwork
from townlet_train.learners.surrogate import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    Losses,
    Objective,
    Transitions,
    differentiate,
    normalised,
)
from townlet_train.policies.network import ILLEGAL_LOGIT, LOG_STD, NetworkSpec

Float = NDArray[np.float32]
Maps = NDArray[np.uint8] | None
WORTH_TWO_LANES = 1 << 25  # rows times weights; the share of fewer is done before the second thread wakes


class ActorCritic(Protocol):
    """A network as PPO uses it; features are standardised already."""

    @property
    def log_std(self) -> Float | None:
        """The spread of real-valued actions, (n_dimensions,); None when actions are indices."""
        ...

    def outputs(self, features: Float, maps: Maps) -> Float:
        """What the actor says of (n, n_features): unmasked logits or means, (n, n_outputs)."""
        ...

    def evaluate(self, features: Float, maps: Maps) -> tuple[Float, Float]:
        """The actor's outputs (n_outputs, n) and the critic's values (n,)."""
        ...

    def distribution(self, outputs: Float, illegal: NDArray[np.bool_] | None) -> Distribution:
        """Actions as outputs (n_outputs, n) make them likely; may overwrite them."""
        ...

    def gradient(self, batch: Transitions, objective: Objective) -> Losses:
        """Fill the flat gradient with that of PPO's objective on a batch."""
        ...

    def forward(self, features: Float, maps: Maps) -> Forward:
        """As `evaluate`, with a way back; both hold until the weights change."""
        ...


class Forward(NamedTuple):
    """What a network puts out for some rows, and the way back to its weights."""

    outputs: Float  # (n_outputs, n)
    values: Float  # (n,)
    backward: Callable[[Float, Float], None]
    """Fills the flat gradient (once) from the slopes of a loss in the outputs (n_outputs, m) and values (m,) of the
    first m rows; those of `log_std` are filled by the distribution."""


def parameter_order(spec: NetworkSpec) -> list[str]:
    """A network's parameters in the order of the flat vector: an MLP's actor and critic layer by layer."""
    if spec.kind != "mlp":
        return list(spec.parameter_shapes())
    pairs = zip(spec.hidden_layers(ACTOR), spec.hidden_layers(CRITIC), strict=True)
    hidden = [f"{layer}.{kind}" for pair in pairs for kind in ("weight", "bias") for layer in pair]
    return hidden + [name for name in spec.parameter_shapes() if name not in hidden]


class MlpActorCritic:
    """Separate actor and critic trunks of equal widths; their hidden layers are computed as pairs.

    A large batch is cut into pieces for two threads, each with a gradient of its own; their sum is the batch's.

    With delta = dL/dz of a layer z = W h + b: dL/dW = delta^T h, dL/db = sum delta, dL/dh = delta W, times 1 - h^2 for
    tanh or [h > 0] for relu.
    """

    def __init__(self, spec: NetworkSpec, parameters: FlatParameters) -> None:
        self._tanh = spec.activation == "tanh"
        values = {name: tensor.numpy() for name, tensor in parameters.values.items()}
        gradients = {name: tensor.numpy() for name, tensor in parameters.gradients.items()}
        layers = list(zip(spec.hidden_layers(ACTOR), spec.hidden_layers(CRITIC), strict=True))
        self._hidden = _Pairs(parameters.vector, parameters, layers)
        self._hidden_gradient = _Pairs(parameters.gradient, parameters, layers)
        self._layers = [
            (weight.transpose(0, 2, 1), bias[:, None])
            for weight, bias in zip(self._hidden.weights, self._hidden.biases, strict=True)
        ]
        self._actor = [(values[f"{actor}.weight"].T, values[f"{actor}.bias"]) for actor, _ in layers]
        self._action_head = values["action_net.weight"], values["action_net.bias"]
        self._action_weight = self._action_head[0].T
        self._value_head = values["value_net.weight"], values["value_net.bias"]
        self._head_gradients = {
            name: gradients[name]
            for name in ("action_net.weight", "action_net.bias", "value_net.weight", "value_net.bias")
        }
        self._log_std, self._log_std_gradient = values.get(LOG_STD), gradients.get(LOG_STD)
        self._parameters, self._two = parameters, TwoLanes()
        self._gradients = parameters.gradient, torch.zeros_like(parameters.gradient)
        weights, *of = (
            MlpArrays.of(flat, spec, parameters) for flat in (parameters.vector, *self._gradients)
        )
        self._lanes = [MlpLane(spec, weights, gradient) for gradient in of]

    @property
    def log_std(self) -> Float | None:
        return self._log_std

    def outputs(self, features: Float, maps: Maps = None) -> Float:
        hidden = features[0] if len(features) == 1 else features  # one row costs least as a vector
        for weight, bias in self._actor:
            hidden = hidden.dot(weight)  # `@` takes twice as long for one row
            hidden += bias
            self._activate(hidden)
        outputs = hidden.dot(self._action_weight)
        outputs += self._action_head[1]
        return np.asarray(outputs.reshape(len(features), -1), np.float32)

    def evaluate(self, features: Float, maps: Maps = None) -> tuple[Float, Float]:
        return self._heads(self._forward(features)[-1])

    def distribution(self, outputs: Float, illegal: NDArray[np.bool_] | None) -> Distribution:
        if self._log_std is None or self._log_std_gradient is None:
            return Categorical(outputs, illegal)
        return DiagonalGaussian(outputs, self._log_std, self._log_std_gradient)

    def gradient(self, batch: Transitions, objective: Objective) -> Losses:
        n = len(batch.returns)
        if n * self._parameters.vector.numel() >= WORTH_TWO_LANES and self._log_std is None:
            return self._gradient_in_pieces(batch, objective)
        outputs, values, backward = self.forward(batch.features)
        distribution = self.distribution(outputs, batch.illegal)
        losses, of_outputs, of_values = differentiate(distribution, values, batch, objective)
        backward(of_outputs, of_values)
        return losses

    def forward(self, features: Float, maps: Maps = None) -> Forward:
        inputs = self._forward(features)

        def backward(of_outputs: Float, of_values: Float) -> None:
            m = len(of_values)
            if m < len(features):
                inputs[:] = [features[:m], *(hidden[:, :m] for hidden in inputs[1:])]
            self._backward(inputs, self._backward_heads(inputs[-1], of_outputs, of_values))

        return Forward(*self._heads(inputs[-1]), backward)

    def _gradient_in_pieces(self, batch: Transitions, objective: Objective) -> Losses:
        n = len(batch.returns)
        if objective.normalize_advantage:
            batch = batch._replace(advantages=normalised(batch.advantages))
            objective = objective._replace(normalize_advantage=False)
        for gradient in self._gradients:
            gradient.zero_()

        def learn(lane: int, piece: Transitions) -> Float:
            share = np.float32(len(piece.returns) / n)
            outputs, values = self._lanes[lane].forward(torch.from_numpy(piece.features))
            distribution = Categorical(outputs.numpy(), piece.illegal)
            losses, of_outputs, of_values = differentiate(distribution, values.numpy(), piece, objective)
            slopes = torch.from_numpy(of_outputs * share), torch.from_numpy(of_values * share)
            self._lanes[lane].backward(*slopes)
            return np.array(losses, np.float32) * share

        losses = self._two.share_out(learn, list(batch.batches(piece_rows(n))))
        self._gradients[0].add_(self._gradients[1])
        return Losses(*np.sum(losses, axis=0).tolist())

    def _activate(self, hidden: Float) -> None:
        np.tanh(hidden, out=hidden) if self._tanh else np.maximum(hidden, 0, out=hidden)

    def _forward(self, features: Float) -> list[Float]:
        """The input of every layer: the features (n, n_features), then each hidden pair (2, n, width)."""
        inputs = [features]
        for weight, bias in self._layers:
            hidden = np.matmul(inputs[-1], weight)
            hidden += bias
            self._activate(hidden)
            inputs.append(hidden)
        return inputs

    def _heads(self, hidden: Float) -> tuple[Float, Float]:
        (weight, bias), (value_weight, value_bias) = self._action_head, self._value_head
        outputs = weight.dot(hidden[0].T)
        outputs += bias[:, None]
        values = hidden[1].dot(value_weight[0])
        values += value_bias
        return outputs, values

    def _backward_heads(self, hidden: Float, of_outputs: Float, of_values: Float) -> Float:
        """Fills the heads' gradients; returns the slope in the last hidden pair, (2, n, width)."""
        gradients = self._head_gradients
        np.matmul(of_outputs, hidden[0], out=gradients["action_net.weight"])
        of_outputs.sum(axis=1, out=gradients["action_net.bias"])
        np.matmul(of_values, hidden[1], out=gradients["value_net.weight"][0])
        gradients["value_net.bias"][0] = of_values.sum()
        of_hidden = np.empty_like(hidden)
        np.matmul(of_outputs.T, self._action_head[0], out=of_hidden[0])
        np.multiply(of_values[:, None], self._value_head[0], out=of_hidden[1])
        return of_hidden

    def _backward(self, inputs: list[Float], delta: Float) -> None:
        """Fills the hidden layers' gradients, last first; overwrites the hidden outputs."""
        ones = np.ones(delta.shape[1], np.float32)
        for i in reversed(range(len(self._hidden.weights))):
            slope = inputs[i + 1]
            if self._tanh:
                slope *= slope
                np.subtract(1, slope, out=slope)
            else:
                np.greater(slope, 0, out=slope)
            delta *= slope
            np.matmul(delta.transpose(0, 2, 1), inputs[i], out=self._hidden_gradient.weights[i])
            np.matmul(ones, delta, out=self._hidden_gradient.biases[i])
            if i > 0:
                delta = np.matmul(delta, self._hidden.weights[i])


class AutogradActorCritic:
    """Any network on any device: the objective as torch reads it."""

    def __init__(self, network: PolicyNetwork, parameters: FlatParameters) -> None:
        self._network = network
        self._gradient = parameters.gradient
        self._log_std, self._log_std_gradient = (
            parameters.values.get(LOG_STD),
            parameters.gradients.get(LOG_STD),
        )
        self._log_std_slope = np.zeros(0 if self._log_std is None else len(self._log_std), np.float32)

    @property
    def log_std(self) -> Float | None:
        return None if self._log_std is None else self._log_std.cpu().numpy()

    def outputs(self, features: Float, maps: Maps) -> Float:
        return self.evaluate(features, maps)[0].T

    def evaluate(self, features: Float, maps: Maps) -> tuple[Float, Float]:
        with torch.no_grad():
            outputs, values = self._heads(features, maps)
        return np.ascontiguousarray(outputs.cpu().numpy().T), values.cpu().numpy()

    def distribution(self, outputs: Float, illegal: NDArray[np.bool_] | None) -> Distribution:
        log_std = self.log_std
        if log_std is None:
            return Categorical(outputs, illegal)
        return DiagonalGaussian(outputs, log_std, self._log_std_slope)

    def forward(self, features: Float, maps: Maps) -> Forward:
        outputs, values = self._heads(features, maps)

        def backward(of_outputs: Float, of_values: Float) -> None:
            m = len(of_values)
            self._gradient.zero_()
            slopes = [self._tensor(of_outputs.T), self._tensor(of_values)]
            torch.autograd.backward([outputs[:m], values[:m]], slopes)
            if self._log_std_gradient is not None:
                self._log_std_gradient.copy_(torch.from_numpy(self._log_std_slope))

        found = outputs.detach().cpu().numpy().T, values.detach().cpu().numpy()
        return Forward(np.ascontiguousarray(found[0]), found[1], backward)

    def gradient(self, batch: Transitions, objective: Objective) -> Losses:
        outputs, values = self._heads(batch.features, batch.maps)
        log_probs, entropy = self._log_probs_and_entropy(outputs, batch)
        old = _Old(*(self._tensor(array) for array in batch[5:]))
        advantages = old.advantages
        if objective.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_probs - old.log_probs
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - objective.clip_range, 1 + objective.clip_range)
        policy_loss = -torch.min(ratio * advantages, clipped * advantages).mean()
        if objective.clip_range_vf is not None:
            limit = objective.clip_range_vf
            values = old.values + (values - old.values).clamp(-limit, limit)
        value_loss = (values - old.returns).square().mean()
        loss = policy_loss + objective.vf_coef * value_loss - objective.ent_coef * entropy.mean()
        reference_kl = loss.new_zeros(()) if batch.reference is None else self._kl_from(outputs, batch).mean()
        loss = loss + objective.kl_coef * reference_kl
        self._gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > objective.clip_range).float().mean()
        measured = (loss, policy_loss, value_loss, entropy.mean(), approx_kl, clip_fraction, reference_kl)
        return Losses(*torch.stack(measured).detach().tolist())

    def _heads(self, features: Float, maps: Maps) -> tuple[Tensor, Tensor]:
        return self._network.heads(self._tensor(features), None if maps is None else self._tensor(maps))

    def _log_probs_and_entropy(self, outputs: Tensor, batch: Transitions) -> tuple[Tensor, Tensor]:
        actions = self._tensor(batch.actions)
        log_std: Tensor | None = getattr(self._network, LOG_STD, None)
        if log_std is not None:
            normal = torch.distributions.Normal(outputs, log_std.exp(), validate_args=False)
            return normal.log_prob(actions).sum(dim=1), normal.entropy().sum(dim=1)  # type: ignore[no-untyped-call]  # untyped in torch
        logs = self._logs(outputs, batch.illegal)
        return logs.gather(1, actions[:, None]).squeeze(1), -(logs.exp() * logs).sum(dim=1)

    def _kl_from(self, outputs: Tensor, batch: Transitions) -> Tensor:
        """KL(reference || policy), (n,)."""
        assert batch.reference is not None
        reference = self._tensor(batch.reference).T
        log_std: Tensor | None = getattr(self._network, LOG_STD, None)
        if log_std is None:
            return (reference.exp() * (reference - self._logs(outputs, batch.illegal))).sum(dim=1)
        mean, ref_log_std = reference.chunk(2, dim=1)
        squares = ((2 * ref_log_std).exp() + (mean - outputs).square()) / (2 * log_std).exp()
        return (log_std - ref_log_std + squares / 2 - 0.5).sum(dim=1)

    def _logs(self, outputs: Tensor, illegal: NDArray[np.bool_] | None) -> Tensor:
        if illegal is not None:
            outputs = outputs.masked_fill(self._tensor(illegal).T, ILLEGAL_LOGIT)
        return outputs.log_softmax(dim=1)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._gradient.device)


class _Old(NamedTuple):
    """What was measured when the actions were taken."""

    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class _Pairs:
    """Views of a flat vector: each hidden layer's actor and critic side by side, weights (2, n_out, n_in)."""

    def __init__(self, vector: Tensor, parameters: FlatParameters, layers: list[tuple[str, str]]) -> None:
        flat = vector.numpy()

        def pair(first: str, second: str) -> Float:
            one, other = parameters.values[first], parameters.values[second]
            start, size = one.storage_offset(), one.numel()
            assert other.storage_offset() == start + size  # `parameter_order` puts them side by side
            return flat[start : start + 2 * size].reshape(2, *one.shape)

        self.weights = [pair(f"{actor}.weight", f"{critic}.weight") for actor, critic in layers]
        self.biases = [pair(f"{actor}.bias", f"{critic}.bias") for actor, critic in layers]
