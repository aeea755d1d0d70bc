"""The actor-critic of the map-and-features network on a CPU, its gradient written out.

A batch is worked through in pieces by two threads, each with a gradient of its own; the sum is the batch's. Pieces
depend on the batch's size alone, and so does every bit of the result. A test compares it with autograd.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.learners.actor_critic import Forward, HostLesson, Lesson
from townlet_train.learners.lanes import MOST_ROWS, piece_rows
from townlet_train.learners.map_kernels import (
    add_bias_and_rectify,
    backward_encoders,
    backward_rectified,
    encode,
    find_cells,
)
from townlet_train.learners.networks import FlatParameters
from townlet_train.learners.pieces import GradientInPieces
from townlet_train.learners.surrogate import (
    Categorical,
    Distribution,
    Losses,
    Objective,
    Transitions,
)
from townlet_train.policies.network import NetworkSpec

Float = NDArray[np.float32]
Maps = NDArray[np.uint8] | None
FEW_ROWS = 256  # of a batch: one thread learns from fewer


class ConflictAwareActorCritic:
    """The network of `ConflictAwarePolicyNetwork` as PPO uses it; actions are indices."""

    def __init__(self, spec: NetworkSpec, parameters: FlatParameters) -> None:
        weights = _Arrays.of(parameters.values)
        self._pieces = GradientInPieces(
            parameters.gradient,
            lambda gradient: _Lane(spec, weights, _Arrays.of(parameters.views(gradient))),
        )

    @property
    def log_std(self) -> Float | None:
        return None

    def outputs(self, features: Float, maps: Maps) -> Float:
        return self.evaluate(features, maps)[0].T

    def evaluate(self, features: Float, maps: Maps) -> tuple[Float, Float]:
        def forward(lane: int, piece: slice) -> Float:
            return self._pieces.lanes[lane].forward_heads(features[piece], known[piece])

        known = _given(maps)
        heads: Float = np.concatenate(self._pieces.share_out(forward, _slices(len(features))), axis=1)
        return heads[:-1], heads[-1]

    def distribution(self, outputs: Float, illegal: NDArray[np.bool_] | None) -> Distribution:
        return Categorical(outputs, illegal)

    def lesson(self, transitions: Transitions) -> Lesson:
        return HostLesson(transitions, self.gradient)

    def gradient(self, batch: Transitions, objective: Objective) -> Losses:
        """Fill the flat gradient with that of PPO's objective on a batch."""
        return self._pieces.learn(batch, objective, _piece_rows(len(batch.returns)))

    def forward(self, features: Float, maps: Maps) -> Forward:
        outputs, values = self.evaluate(features, maps)

        def backward(of_outputs: Float, of_values: Float) -> None:
            known = _given(maps)

            def learn(lane: int, piece: slice) -> None:
                one = self._pieces.lanes[lane]
                one.forward(features[piece], known[piece])  # lanes keep no more than their last piece
                one.backward(of_outputs[:, piece], of_values[piece])

            self._pieces.add_up(learn, _slices(len(of_values)))

        return Forward(outputs, values, backward)


class _Arrays(NamedTuple):
    """The network's weights, or their gradient; tensors where torch multiplies, arrays where NumPy and kernels write.

    Both encoders' outputs lie side by side and so do both heads', which makes one product of each pair.
    """

    map_weight: Float  # (cells, width): the row of a cell is together
    map_bias: Float
    feature_weight: Tensor
    feature_bias: Float
    shared_weight: Tensor
    shared_bias: Float
    head_weights: tuple[Float, Float]  # (n_actions, width) and (1, width)
    head_biases: tuple[Float, Float]

    @classmethod
    def of(cls, named: dict[str, Tensor]) -> _Arrays:
        """Views of arrays by name."""
        policy, value = "policy_head", "value_head"
        return cls(
            named["map_encoder.1.weight"].t().numpy(),
            named["map_encoder.1.bias"].numpy(),
            named["feature_encoder.0.weight"],
            named["feature_encoder.0.bias"].numpy(),
            named["shared.0.weight"],
            named["shared.0.bias"].numpy(),
            (named[f"{policy}.weight"].numpy(), named[f"{value}.weight"].numpy()),
            (named[f"{policy}.bias"].numpy(), named[f"{value}.bias"].numpy()),
        )


class _Lane:
    """One thread's gradient and the room it computes in; the weights are everyone's.

    With delta = dL/dz of a layer z = W h + b: dL/dW = delta^T h, dL/db = sum delta, dL/dh = delta W, times [h > 0].
    """

    def __init__(self, spec: NetworkSpec, weights: _Arrays, gradient: _Arrays) -> None:
        self._weights, self._of = weights, gradient
        (self._width,) = spec.hidden_sizes
        most_cells = MOST_ROWS * math.prod(spec.map_shape) + 1
        self._cells, self._amounts = np.empty(most_cells, np.int32), np.empty(most_cells, np.float32)
        self._ends = np.empty(MOST_ROWS, np.int64)
        self._encoded, self._of_encoded = (torch.empty(MOST_ROWS, 2 * self._width) for _ in range(2))
        self._hidden, self._of_hidden = (torch.empty(MOST_ROWS, self._width) for _ in range(2))

    def forward(self, features: Float, maps: Maps) -> tuple[Float, Float]:
        """Logits (n_actions, n) and values (n,); `backward` needs what is kept until the next call."""
        heads = self.forward_heads(features, _given(maps))
        return heads[:-1], heads[-1]

    def forward_heads(self, features: Float, maps: NDArray[np.uint8]) -> Float:
        """As `forward`, values below the logits: (n_actions + 1, n)."""
        w, n = self._weights, len(features)
        self._features = torch.from_numpy(np.ascontiguousarray(features))
        ends, encoded, hidden = self._ends[:n], self._encoded[:n], self._hidden[:n]
        find_cells(maps.reshape(n, -1), self._cells, self._amounts, ends)
        torch.mm(self._features, w.feature_weight.t(), out=encoded[:, self._width :])
        encode(self._cells, self._amounts, ends, w.map_weight, w.map_bias, w.feature_bias, encoded.numpy())
        torch.mm(encoded, w.shared_weight.t(), out=hidden)
        add_bias_and_rectify(hidden.numpy(), w.shared_bias)
        self._head_weight = torch.from_numpy(np.concatenate(w.head_weights))
        heads: Float = torch.mm(self._head_weight, hidden.t()).numpy()
        heads += np.concatenate(w.head_biases)[:, None]
        return heads

    def backward(self, of_outputs: Float, of_values: Float) -> None:
        """Add the gradient that slopes in the logits (n_actions, n) and values (n,) make for the rows of `forward`."""
        of_heads = np.concatenate([of_outputs, of_values[None]])
        w, of, n = self._weights, self._of, of_heads.shape[1]
        ends, encoded, hidden = self._ends[:n], self._encoded[:n], self._hidden[:n]
        of_encoded, of_hidden = self._of_encoded[:n], self._of_hidden[:n]
        slopes = torch.from_numpy(of_heads)
        of_head_weight = torch.mm(slopes, hidden).numpy()
        of_head_bias = of_heads.sum(axis=1)
        for part, rows in zip((0, 1), (slice(0, -1), slice(-1, None)), strict=True):
            of.head_weights[part][:] += of_head_weight[rows]
            of.head_biases[part][:] += of_head_bias[rows]
        torch.mm(slopes.t(), self._head_weight, out=of_hidden)
        backward_rectified(of_hidden.numpy(), hidden.numpy(), of.shared_bias)
        of.shared_weight.addmm_(of_hidden.t(), encoded)
        torch.mm(of_hidden, w.shared_weight, out=of_encoded)
        backward_encoders(
            self._cells,
            self._amounts,
            ends,
            of_encoded.numpy(),
            encoded.numpy(),
            of.map_weight,
            of.map_bias,
            of.feature_bias,
        )
        of.feature_weight.addmm_(of_encoded[:, self._width :].t(), self._features)


def _piece_rows(n: int) -> int:
    """Rows of each piece that n rows are cut into: one piece where they are few."""
    return n if n < FEW_ROWS else piece_rows(n)


def _slices(n: int) -> list[slice]:
    """The pieces that n rows are cut into."""
    rows = _piece_rows(n)
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def _given(maps: Maps) -> NDArray[np.uint8]:
    if maps is None:
        raise ValueError("a conflict_aware network reads maps, and none were given")
    return maps
