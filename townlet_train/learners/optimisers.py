"""Optimisers of one flat vector: a step is one operation, and the state is a few arrays a checkpoint can hold."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

from townlet_train.data.checkpoint import Arrays


class FlatOptimiser(Protocol):
    """A rule that moves one vector against its gradient, and what it remembers."""

    def step(self, learning_rate: float) -> None:
        """Move the vector against the gradient."""
        ...

    def reset(self) -> None:
        """Forget all gradients seen."""
        ...

    def arrays(self) -> Arrays:
        """Copies of the state by name."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Continue from what `arrays` gave; names that are not its own are left alone."""
        ...


class FlatAdam:
    """Adam (Kingma and Ba 2015) through torch's functional form, which costs half of the class for small vectors."""

    def __init__(self, vector: Tensor, gradient: Tensor, *, eps: float) -> None:
        self._vector, self._gradient, self._eps = vector, gradient, eps
        self.reset()

    def reset(self) -> None:
        """Forget all gradients seen."""
        self._mean, self._square = torch.zeros_like(self._vector), torch.zeros_like(self._vector)
        self._steps = torch.zeros((), device=self._vector.device)

    def step(self, learning_rate: float) -> None:
        """Move the vector against the gradient."""
        adam(
            [self._vector],
            [self._gradient],
            [self._mean],
            [self._square],
            [],
            [self._steps],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    def arrays(self) -> Arrays:
        """Copies of the state by name."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self._state.items()}

    def restore(self, arrays: Arrays) -> None:
        """Continue from what `arrays` gave."""
        for name, tensor in self._state.items():
            tensor.copy_(torch.from_numpy(arrays[name]).view_as(tensor))

    @property
    def _state(self) -> dict[str, Tensor]:
        return {"adam.exp_avg": self._mean, "adam.exp_avg_sq": self._square, "adam.step": self._steps}
