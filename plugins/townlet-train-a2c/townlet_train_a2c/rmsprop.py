"""RMSProp on one flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

DECAY = 0.99  # Stable-Baselines3's, and torch's
SQUARE = "rmsprop.square"


class FlatRMSProp:
    """Steps over the root of the squared gradients' running mean (Tieleman and Hinton 2012); as torch's RMSprop.

    s <- d s + (1 - d) g^2        w <- w - rate g / (sqrt(s) + eps)
    """

    def __init__(self, vector: Tensor, gradient: Tensor, *, eps: float) -> None:
        self._vector, self._gradient, self._eps = vector, gradient, eps
        self._square, self._root = torch.zeros_like(vector), torch.empty_like(vector)

    def step(self, learning_rate: float) -> None:
        """Move the vector against the gradient."""
        self._square.mul_(DECAY).addcmul_(self._gradient, self._gradient, value=1 - DECAY)
        torch.sqrt(self._square, out=self._root).add_(self._eps)
        self._vector.addcdiv_(self._gradient, self._root, value=-learning_rate)

    def reset(self) -> None:
        """Forget all gradients seen."""
        self._square.zero_()

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Copies of the state by name."""
        return {SQUARE: self._square.cpu().numpy().copy()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from what `arrays` gave."""
        self._square.copy_(torch.from_numpy(arrays[SQUARE]))
