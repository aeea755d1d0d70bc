"""The gradient of the demonstrator's negative log-likelihood: written out for the MLP, by autograd for the rest.

Of indices that is the masked cross-entropy, of vectors that of a Gaussian around the network's outputs, whose `log_std`
is learned with the weights.

For networks of a few thousand weights the bookkeeping of autograd costs more than the arithmetic. `MlpGradient` works
in NumPy on the memory of torch's flat vectors: same numbers to rounding (a test compares them), several times sooner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_train.learners.autograd import gaussian_log_probs
from townlet_train.learners.networks import FlatParameters, PolicyNetwork
from townlet_train.learners.surrogate import DiagonalGaussian
from townlet_train.policies.network import ILLEGAL_LOGIT, LOG_STD, NetworkSpec

Float = NDArray[np.float32]


class Frames(NamedTuple):
    """Frames to imitate, their features standardised already."""

    features: Float  # (n, n_features)
    maps: NDArray[np.uint8] | NDArray[np.float32] | None  # (n, channels, height, width)
    illegal: NDArray[
        np.bool_
    ]  # (n_actions, n): actions first, so that reductions over actions run along memory
    actions: NDArray[Any]  # (n,) indices, or (n, n_dimensions) real numbers

    def batches(self, batch_size: int) -> Iterator[Frames]:
        """Views of consecutive frames; the last may be shorter."""
        for start in range(0, len(self.actions), batch_size):
            rows = slice(start, start + batch_size)
            maps = None if self.maps is None else self.maps[rows]
            yield Frames(self.features[rows], maps, self.illegal[:, rows], self.actions[rows])


class Gradient(Protocol):
    """Fills the flat gradient with that of the mean loss of some frames; returns the summed loss, nats."""

    def __call__(self, frames: Frames) -> float: ...


class MlpGradient:
    """The MLP actor's gradient, layer by layer.

    With z = W h + b, masked, and p = softmax(z): dL/dz = (p - onehot(action)) / n, dL/dW = dL/dz h^T,
    dL/db = sum dL/dz, dL/dh = W^T dL/dz, times 1 - h^2 for tanh or [h > 0] for relu. Of vectors, z is their mean, and
    `DiagonalGaussian` has dL/dz.
    """

    def __init__(self, spec: NetworkSpec, parameters: FlatParameters) -> None:
        self._tanh = spec.activation == "tanh"
        layers = [*spec.hidden_layers(spec.actor_trunk), "action_net"]
        self._weights = [parameters.values[f"{layer}.weight"].numpy() for layer in layers]
        self._biases = [parameters.values[f"{layer}.bias"].numpy() for layer in layers]
        self._weight_gradients = [parameters.gradients[f"{layer}.weight"].numpy() for layer in layers]
        self._bias_gradients = [parameters.gradients[f"{layer}.bias"].numpy() for layer in layers]
        self._spread = (
            (parameters.values[LOG_STD].numpy(), parameters.gradients[LOG_STD].numpy())
            if spec.distribution == "gaussian"
            else None
        )
        self._buffers: dict[int, _Buffers] = {}

    def __call__(self, frames: Frames) -> float:
        n = len(frames.actions)
        if n not in self._buffers:
            self._buffers[n] = _Buffers(n, [len(bias) for bias in self._biases])
        buffers = self._buffers[n]
        hidden = self._forward_hidden(frames.features, buffers)
        loss = self._output_gradient(hidden[-1], frames, buffers)
        self._backward(hidden, buffers)
        return loss

    def _forward_hidden(self, features: Float, buffers: _Buffers) -> list[Float]:
        """The input of every layer: the features, then each hidden layer's output (n, width)."""
        inputs = [features]
        for weight, bias, output in zip(self._weights, self._biases, buffers.hidden, strict=False):
            np.matmul(inputs[-1], weight.T, out=output)
            output += bias
            np.tanh(output, out=output) if self._tanh else np.maximum(output, 0, out=output)
            inputs.append(output)
        return inputs

    def _output_gradient(self, hidden: Float, frames: Frames, buffers: _Buffers) -> float:
        """dL/dz (n_actions, n) into `buffers.output`; returns the summed loss."""
        n = len(frames.actions)
        z = np.matmul(self._weights[-1], hidden.T, out=buffers.output)
        z += self._biases[-1][:, None]
        if self._spread is not None:
            gaussian = DiagonalGaussian(z, *self._spread)
            loss = -gaussian.log_probs(frames.actions).sum()
            z[:] = gaussian.gradient(frames.actions, np.full(n, -1 / n, np.float32), 0.0)
            return float(loss)
        chosen = frames.actions, buffers.rows
        np.copyto(z, np.float32(ILLEGAL_LOGIT), where=frames.illegal)
        z -= z.max(axis=0)
        of_labels = z[chosen].sum()
        np.exp(z, out=z)
        totals = z.sum(axis=0)
        loss = np.log(totals).sum() - of_labels
        z /= totals * n
        z[chosen] -= 1 / n
        return float(loss)

    def _backward(self, inputs: list[Float], buffers: _Buffers) -> None:
        """Every weight's and bias's gradient, from the last layer to the first; overwrites the hidden outputs."""
        delta = buffers.output.T
        for i in reversed(range(len(self._weights))):
            np.matmul(delta.T, inputs[i], out=self._weight_gradients[i])
            np.matmul(buffers.ones, delta, out=self._bias_gradients[i])
            if i == 0:
                return
            delta = np.matmul(delta, self._weights[i], out=buffers.deltas[i - 1])
            slope = inputs[i]
            if self._tanh:
                slope *= slope
                np.subtract(1, slope, out=slope)
            else:
                np.greater(slope, 0, out=slope)
            delta *= slope


class AutogradGradient:
    """The gradient of any network on any device, by autograd."""

    def __init__(self, network: PolicyNetwork, parameters: FlatParameters) -> None:
        self._network = network
        self._gradient = parameters.gradient

    def __call__(self, frames: Frames) -> float:
        device = self._gradient.device
        features, illegal, actions = (
            torch.from_numpy(array).to(device)
            for array in (frames.features, frames.illegal.T, frames.actions)
        )
        maps = None if frames.maps is None else torch.from_numpy(frames.maps).to(device)
        outputs, _ = self._network.heads(features, maps)
        if self._network.spec.distribution == "gaussian":
            loss = -gaussian_log_probs(outputs, self._network.log_std, actions).mean()
        else:
            loss = torch.nn.functional.cross_entropy(outputs.masked_fill(illegal, ILLEGAL_LOGIT), actions)
        self._gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        return float(loss.detach()) * len(frames.actions)


class _Buffers:
    """Arrays for one batch size, so that an update allocates nothing large."""

    def __init__(self, n: int, widths: list[int]) -> None:
        *hidden, n_actions = widths
        self.hidden = [np.empty((n, width), np.float32) for width in hidden]
        self.deltas = [np.empty((n, width), np.float32) for width in hidden]
        self.output = np.empty((n_actions, n), np.float32)
        self.ones = np.ones(n, np.float32)
        self.rows = np.arange(n)
