"""An actor and its critic: what they put out, and the gradient of PPO's objective in every weight.

Written out in NumPy for the MLP, on the memory of torch's flat vectors, because for a few thousand weights the
bookkeeping of autograd costs several times the arithmetic. `conflict_aware` has the map-and-features network,
`autograd` every other network and device. A test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.learners.descent import Batch
from townlet_train.learners.lanes import piece_rows
from townlet_train.learners.mlp_lane import ACTOR, CRITIC, MlpArrays, MlpLane
from townlet_train.learners.networks import FlatParameters
from townlet_train.learners.pieces import GradientInPieces
from townlet_train.learners.surrogate import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    Losses,
    Objective,
    Transitions,
    differentiate,
)
from townlet_train.policies.network import LOG_STD, NetworkSpec

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

    def lesson(self, transitions: Transitions) -> Lesson:
        """Transitions put where the network is, to be learned from."""
        ...

    def forward(self, features: Float, maps: Maps) -> Forward:
        """As `evaluate`, with a way back; both hold until the weights change."""
        ...


class Lesson(Protocol):
    """Transitions that lie where their network is."""

    def gradients(
        self, order: NDArray[np.int64], batch_size: int, objective: Objective
    ) -> Iterator[Gradient]:
        """Fill the flat gradient with that of PPO's objective on one batch after another, rows in that order.

        The next batch is begun with the weights as they are by then.
        """
        ...


class Gradient(NamedTuple):
    """What a batch measured on the way to its gradient."""

    losses: Losses
    norm: float | None  # where it cost nothing to measure
    batch: Batch


class HostLesson:
    """Transitions in NumPy, and what fills the gradient for some of them."""

    def __init__(
        self, transitions: Transitions, gradient: Callable[[Transitions, Objective], Losses]
    ) -> None:
        self._transitions, self._gradient = transitions, gradient

    def gradients(
        self, order: NDArray[np.int64], batch_size: int, objective: Objective
    ) -> Iterator[Gradient]:
        for batch in self._transitions.take(order).batches(batch_size):
            yield Gradient(self._gradient(batch, objective), None, batch)


class Forward(NamedTuple):
    """What a network puts out for some rows, and the way back to its weights."""

    outputs: Float  # (n_outputs, n)
    values: Float  # (n,)
    backward: Callable[[Float, Float], None]
    """Fills the flat gradient (once) from the slopes of a loss in the outputs (n_outputs, m) and values (m,) of the
    first m rows; those of `log_std` are filled by the distribution."""


def parameter_order(spec: NetworkSpec) -> list[str]:
    """A network's parameters in the order of the flat vector: separate trunks' actor and critic layer by layer."""
    if spec.kind != "mlp" or spec.shared_trunk:
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
        self._parameters = parameters
        weights = MlpArrays.of(parameters.vector, spec, parameters)
        self._pieces = GradientInPieces(
            parameters.gradient,
            lambda gradient: MlpLane(spec, weights, MlpArrays.of(gradient, spec, parameters)),
        )

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

    def lesson(self, transitions: Transitions) -> Lesson:
        return HostLesson(transitions, self.gradient)

    def gradient(self, batch: Transitions, objective: Objective) -> Losses:
        """Fill the flat gradient with that of PPO's objective on a batch."""
        n = len(batch.returns)
        if n * self._parameters.vector.numel() >= WORTH_TWO_LANES and self._log_std is None:
            return self._pieces.learn(batch, objective, piece_rows(n))
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
