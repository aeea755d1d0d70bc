"""The gradient of a large batch in pieces: two threads with a gradient each, whose sum is the batch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from townlet_train.learners.lanes import Done, Piece, TwoLanes
from townlet_train.learners.surrogate import (
    Categorical,
    Float,
    Losses,
    Objective,
    Transitions,
    differentiate,
    normalised,
)


class Lane(Protocol):
    """One thread's gradient and the room it computes in; actions are indices."""

    def forward(self, features: Float, maps: NDArray[np.uint8] | None) -> tuple[Float, Float]:
        """The actor's outputs (n_outputs, n) and the critic's values (n,)."""
        ...

    def backward(self, of_outputs: Float, of_values: Float) -> None:
        """Add to the lane's gradient what slopes in the outputs and values of the last `forward` make of it."""
        ...


OneLane = TypeVar("OneLane", bound=Lane)


class GradientInPieces(Generic[OneLane]):
    """Fills `gradient` from pieces; lane 0 adds to it, lane 1 to one of its own, which is added in the end."""

    def __init__(self, gradient: Tensor, build_lane: Callable[[Tensor], OneLane]) -> None:
        self._gradient, self._second = gradient, torch.zeros_like(gradient)
        self.lanes = build_lane(gradient), build_lane(self._second)
        self._two = TwoLanes()

    def learn(self, batch: Transitions, objective: Objective, rows: int) -> Losses:
        """Fill the gradient with that of PPO's objective on a batch, cut into pieces of so many rows."""
        if objective.normalize_advantage:
            batch = batch._replace(advantages=normalised(batch.advantages))
            objective = objective._replace(normalize_advantage=False)
        n = len(batch.returns)

        def learn(lane: int, piece: Transitions) -> Float:
            share = np.float32(len(piece.returns) / n)
            outputs, values = self.lanes[lane].forward(piece.features, piece.maps)
            distribution = Categorical(outputs, piece.illegal)
            losses, of_outputs, of_values = differentiate(distribution, values, piece, objective)
            self.lanes[lane].backward(of_outputs * share, of_values * share)
            return np.array(losses, np.float32) * share

        losses = self.add_up(learn, list(batch.batches(rows)))
        return Losses(*np.sum(losses, axis=0).tolist())

    def add_up(self, learn: Callable[[int, Piece], Done], pieces: Sequence[Piece]) -> list[Done]:
        """Fill the gradient with the sum of what `learn` adds for every piece; returns what it measured."""
        self._gradient.zero_()
        if len(pieces) > 1:
            self._second.zero_()
        measured = self.share_out(learn, pieces)
        if len(pieces) > 1:
            self._gradient += self._second
        return measured

    def share_out(self, work: Callable[[int, Piece], Done], pieces: Sequence[Piece]) -> list[Done]:
        """What `work(lane, piece)` makes of every piece, in order."""
        return self._two.share_out(work, pieces)
