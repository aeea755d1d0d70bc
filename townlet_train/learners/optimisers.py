"""Optimisers of one flat vector: a step is one operation, and the state is a few arrays a checkpoint can hold."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

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
    """Adam (Kingma and Ba 2015) by the operation under torch's class, which alone costs less than half of it here.

    The class would also bring torch's compiler along, a second at its first use. `weight_decay` adds that share of the
    vector to its gradient. `steps` is how many lie behind: after very many, the moments are no longer corrected for
    having begun at 0.
    """

    def __init__(
        self,
        vector: Tensor,
        gradient: Tensor,
        *,
        eps: float,
        betas: tuple[float, float] = (0.9, 0.999),
        steps: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self._vector, self._gradient, self._eps = vector, gradient, eps
        self._weight_decay = weight_decay
        self._betas, self._first_steps = betas, steps
        self._mean, self._square = torch.zeros_like(vector), torch.zeros_like(vector)
        self._steps = torch.tensor(steps, device=vector.device)

    def reset(self) -> None:
        """Forget all gradients seen."""
        self._mean.zero_()
        self._square.zero_()
        self._steps.fill_(self._first_steps)

    def step(self, learning_rate: float) -> None:
        """Move the vector against the gradient."""
        self._steps += 1
        torch._fused_adam_(
            [self._vector],
            [self._gradient],
            [self._mean],
            [self._square],
            [],
            [self._steps],
            lr=learning_rate,
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=self._weight_decay,
            eps=self._eps,
            amsgrad=False,
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
