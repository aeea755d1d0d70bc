"""Descent along gradients that are finite: what is not never reaches the weights, and good weights come back."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.data.checkpoint import Arrays, under
from townlet_train.errors import TrainingError
from townlet_train.learners.networks import FlatParameters
from townlet_train.learners.optimisers import FlatOptimiser

SKIPS_IN_A_ROW = 5  # so many updates without a finite gradient, and the last good weights come back
MOST_RESTORES = 3
logger = logging.getLogger(__name__)


class Batch(Protocol):
    """A named tuple of what a gradient was computed from."""

    def _asdict(self) -> dict[str, Any]: ...


class GuardedDescent:
    """Steps of an optimiser over one flat vector, each gradient cut to a longest norm and refused if not finite.

    Arrays that are `frozen` stay as they are, as long as the optimiser has never seen them move.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        optimiser: FlatOptimiser,
        max_grad_norm: float,
        frozen: Iterable[str] = (),
    ) -> None:
        self.n_updates = self.skipped_updates = self.restores = 0
        self._parameters, self._optimiser, self._max_grad_norm = parameters, optimiser, max_grad_norm
        on_cpu = parameters.gradient.device.type == "cpu"
        self._gradient: Any = (
            parameters.gradient.numpy() if on_cpu else parameters.gradient
        )  # NumPy costs less
        self._frozen = [parameters.gradients[name] for name in frozen]
        self._skipped_in_a_row = 0
        self._good = parameters.vector.clone()

    @property
    def rate_factor(self) -> float:
        """What learning rates are multiplied with: halved by every return to good weights."""
        return 0.5**self.restores

    def step(
        self, loss: float, learning_rate: float, batch: Batch, norm: float | None = None
    ) -> float | None:
        """Step along the flat gradient, which is that of `batch`; returns its norm before cutting, None if skipped.

        The norm is measured, which waits for the device, unless it is known.

        Raises:
            TrainingError: nothing is finite although weights were restored; names the first array that is not.
        """
        gradient = self._gradient
        for frozen in self._frozen:
            frozen.zero_()
        if norm is None or self._frozen:
            norm = math.sqrt(float(gradient.dot(gradient)))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._skip(learning_rate, batch)
            return None
        if norm > self._max_grad_norm:
            gradient *= self._max_grad_norm / (norm + 1e-6)
        self._optimiser.step(learning_rate * self.rate_factor)
        self.n_updates += 1
        self._skipped_in_a_row = 0
        return norm

    def keep(self) -> None:
        """The weights as they are are good, unless the last update was skipped."""
        if self._skipped_in_a_row == 0:
            self._good.copy_(self._parameters.vector)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Copies of everything by name, the optimiser's arrays included."""
        counts = [self.n_updates, self.skipped_updates, self.restores, self._skipped_in_a_row]
        own = {"counts": np.array(counts), "good": self._good.cpu().numpy().copy()}
        return {**self._optimiser.arrays(), **under("descent", own)}

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        counts = state["descent.counts"].tolist()
        self.n_updates, self.skipped_updates, self.restores, self._skipped_in_a_row = counts
        self._good.copy_(torch.from_numpy(state["descent.good"]))
        self._optimiser.restore(state)

    def adopt(self, state: Arrays | None) -> None:
        """Begin anew with the weights as they are, which are good, and another run's knowledge of gradients."""
        if state is not None:
            self._optimiser.restore(state)
        self.keep()

    def _skip(self, learning_rate: float, batch: Batch) -> None:
        """Leave the weights as they are; after some skips in a row, as they were, with half the step size."""
        self.skipped_updates += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row < SKIPS_IN_A_ROW:
            return
        culprit = self._first_non_finite(batch)
        if self.restores == MOST_RESTORES:
            raise TrainingError(
                f"{SKIPS_IN_A_ROW} updates in a row were not finite, after {self.restores} returns to good weights; "
                f"the first array that is not finite is {culprit!r}. Lower the learning rate, it was "
                f"{learning_rate * self.rate_factor:g}, or look at what the environment returns."
            )
        self.restores += 1
        self._skipped_in_a_row = 0
        self._parameters.vector.copy_(self._good)
        self._optimiser.reset()
        logger.warning("%r is not finite; back to the last good weights, learning rate halved", culprit)

    def _first_non_finite(self, batch: Batch) -> str:
        """The name of the array where the trouble starts: what was observed, then weights, then gradients."""
        named = {
            name: array for name, array in batch._asdict().items() if isinstance(array, np.ndarray | Tensor)
        }
        named |= self._parameters.values
        named |= {f"gradient of {name}": tensor for name, tensor in self._parameters.gradients.items()}
        return next((name for name, array in named.items() if not _finite(array)), "loss")


def _finite(array: NDArray[Any] | Tensor) -> bool:
    return bool(np.isfinite(array.cpu().numpy() if isinstance(array, Tensor) else array).all())
