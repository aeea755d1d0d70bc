"""Gymnasium's spaces in the terms of the vector protocol: named features, and indices or vectors as actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from townlet_train.errors import EnvironmentCreationError, UsageError

Flatten = Callable[[Any], NDArray[Any]]  # an observation of the space to (n_features,)


class ObservationCode(NamedTuple):
    """How observations of a space become features."""

    names: tuple[str, ...]
    flatten: Flatten


class DiscreteActions:
    """Indices 0..n-1, shifted to where the space starts."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dtype: np.dtype[Any] = np.dtype(np.int64)
    shape: tuple[int, ...] = ()

    def __init__(self, space: spaces.Discrete) -> None:
        self._n, self._start = int(space.n), int(space.start)
        self.names = tuple(f"action_{index}" for index in range(self._n))

    def decode(self, actions: NDArray[Any]) -> list[Any]:
        """The environment's action for each of (n_envs, 1) indices.

        Raises:
            UsageError: an index is not one of the space's.
        """
        if actions.dtype.kind not in "iu":
            raise UsageError(f"Actions are indices, arrays of {actions.dtype} were given.")
        indices = actions.ravel().tolist()
        for index in indices:
            if not 0 <= index < self._n:
                raise UsageError(f"Actions lie in 0..{self._n - 1}, {index} was given.")
        return [index + self._start for index in indices] if self._start else indices


class BoxActions:
    """Vectors of the flattened box, cut to its bounds."""

    names: tuple[str, ...] = ()

    def __init__(self, space: spaces.Box) -> None:
        self._low, self._high = (bound.astype(np.float32).ravel() for bound in (space.low, space.high))
        self.low, self.high = tuple(self._low.tolist()), tuple(self._high.tolist())
        self.shape = space.shape
        self.dtype: np.dtype[Any] = np.dtype(space.dtype)

    def decode(self, actions: NDArray[Any]) -> list[Any]:
        """The environment's action for each of (n_envs, 1, dim) vectors, arrays of their own."""
        within = np.minimum(np.maximum(actions[:, 0], self._low), self._high).astype(self.dtype)
        return [*within.reshape(-1, *self.shape)]


ActionCode = DiscreteActions | BoxActions


def observation_code(space: spaces.Space[Any], env_id: str) -> ObservationCode:
    """Names and flattening of a space of fixed size; `EnvironmentCreationError` for others."""
    if not space.is_np_flattenable:
        raise EnvironmentCreationError(
            f"The observations of {env_id} are {space}, which have no fixed size. Wrap it so that they are arrays."
        )
    names = tuple(f"obs_{index}" for index in range(spaces.flatdim(space)))
    return ObservationCode(names, _flatten_of(space))


def action_code(space: spaces.Space[Any], env_id: str) -> ActionCode:
    """The code of a Discrete or Box space; `EnvironmentCreationError` for others."""
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(space)
    if isinstance(space, spaces.Box):
        return BoxActions(space)
    raise EnvironmentCreationError(f"The actions of {env_id} are {space}, expected a Discrete or Box space.")


def _flatten_of(space: spaces.Space[Any]) -> Flatten:
    if not isinstance(space, spaces.Box):
        return lambda observation: np.asarray(spaces.flatten(space, observation))
    return np.asarray if len(space.shape) == 1 else np.ravel
