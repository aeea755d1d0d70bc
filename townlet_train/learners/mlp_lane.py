"""One piece of a large batch through the MLP and back, in torch's products on arrays that are kept.

For some hundred rows and more these outrun NumPy's; for fewer a call of torch costs more than its arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.learners.networks import FlatParameters
from townlet_train.policies.network import NetworkSpec

Float = NDArray[np.float32]
ACTOR, CRITIC = "mlp_extractor.policy_net", "mlp_extractor.value_net"


class MlpArrays(NamedTuple):
    """The MLP's weights, or their gradient: views of a flat vector, actor and critic in pairs."""

    weights: list[Tensor]  # (2, n_out, n_in)
    biases: list[Tensor]  # (2, 1, n_out)
    action_weight: Tensor  # (n_actions, width)
    action_bias: Tensor
    value_weight: Tensor  # (width,)
    value_bias: Tensor  # (1,)

    @classmethod
    def of(cls, vector: Tensor, spec: NetworkSpec, parameters: FlatParameters) -> MlpArrays:
        """Views of a vector in the order of `parameter_order`."""

        def array(name: str, times: int = 1) -> Tensor:
            like = parameters.values[name]
            start, size = like.storage_offset(), times * like.numel()
            return vector[start : start + size]

        layers = spec.hidden_layers(ACTOR).items()
        return cls(
            [array(f"{layer}.weight", 2).view(2, *shape) for layer, shape in layers],
            [array(f"{layer}.bias", 2).view(2, 1, n_out) for layer, (n_out, _) in layers],
            array("action_net.weight").view(spec.n_actions, -1),
            array("action_net.bias"),
            array("value_net.weight"),
            array("value_net.bias"),
        )


class MlpLane:
    """The room one piece after another is computed in, and the sum of the gradients they leave.

    With delta = dL/dz of a layer z = W h + b: dL/dW = delta^T h, dL/db = sum delta, dL/dh = delta W, times 1 - h^2 for
    tanh or [h > 0] for relu.
    """

    def __init__(self, spec: NetworkSpec, weights: MlpArrays, gradient: MlpArrays) -> None:
        self._tanh = spec.activation == "tanh"
        self._weights, self._gradient = weights, gradient
        self._widths = spec.hidden_sizes
        self._room = self._empty_room(0)
        self._hidden = self._room

    def forward(self, features: Float, maps: object = None) -> tuple[Float, Float]:
        """The actor's outputs (n_outputs, n) and the critic's values (n,) for features (n, n_features)."""
        w, n = self._weights, len(features)
        if self._room[0].shape[1] != n:
            self._room = self._empty_room(n)
        self._features = torch.from_numpy(features).expand(2, *features.shape)
        self._hidden = self._room[: len(self._widths)]
        inputs = self._features
        for weight, bias, hidden in zip(w.weights, w.biases, self._hidden, strict=True):
            torch.baddbmm(bias, inputs, weight.transpose(1, 2), out=hidden)
            torch.tanh(hidden, out=hidden) if self._tanh else torch.relu_(hidden)
            inputs = hidden
        outputs = torch.addmm(w.action_bias[:, None], w.action_weight, inputs[0].t())
        return outputs.numpy(), torch.addmv(w.value_bias, inputs[1], w.value_weight).numpy()

    def _empty_room(self, n: int) -> list[Tensor]:
        """What every hidden layer puts out, then the slopes in it, (2, n, width) each."""
        return [torch.empty(2, n, width) for width in (*self._widths, *self._widths)]

    def backward(self, of_outputs: Float, of_values: Float) -> None:
        """Add what slopes in the outputs (n_outputs, n) and values (n,) of `forward` make of the gradient."""
        self._backward(torch.from_numpy(of_outputs), torch.from_numpy(of_values))

    def _backward(self, of_outputs: Tensor, of_values: Tensor) -> None:
        w, g, deltas = self._weights, self._gradient, self._room[len(self._widths) :]
        last, delta = self._hidden[-1], deltas[-1]
        g.action_weight.addmm_(of_outputs, last[0])
        g.action_bias.add_(of_outputs.sum(dim=1))
        g.value_weight.addmv_(last[1].t(), of_values)
        g.value_bias.add_(of_values.sum())
        torch.mm(of_outputs.t(), w.action_weight, out=delta[0])
        torch.outer(of_values, w.value_weight, out=delta[1])
        for i in reversed(range(len(deltas))):
            delta, hidden = deltas[i], self._hidden[i]
            if self._tanh:
                torch.ops.aten.tanh_backward.grad_input(delta, hidden, grad_input=delta)
            else:
                torch.ops.aten.threshold_backward.grad_input(delta, hidden, 0, grad_input=delta)
            inputs = self._hidden[i - 1] if i else self._features
            g.weights[i].baddbmm_(delta.transpose(1, 2), inputs)
            g.biases[i].add_(delta.sum(dim=1, keepdim=True))
            if i:
                torch.bmm(delta, w.weights[i], out=deltas[i - 1])
