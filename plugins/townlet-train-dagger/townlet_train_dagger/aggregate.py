"""Everything the expert has labelled, in arrays that are allocated once and never change their type."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.api import CheckpointError, DataError, Demonstrations, EnvSpec, Observation

Index = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

HOLD_OUT_EVERY = 5  # episodes; the first of every five is never learned from
NO_EPISODE = -1  # of frames that are all learned from


class Aggregate:
    """Frames in the order in which they were labelled, room for `capacity`; those demonstrated come first."""

    def __init__(self, spec: EnvSpec, capacity: int, *, with_maps: bool) -> None:
        self._spec, self._capacity = spec, capacity
        self._arrays: Arrays = {
            "features": np.zeros((capacity, len(spec.feature_names)), np.float32),
            "action_mask": np.zeros((capacity, len(spec.action_names)), np.bool_),
            "actions": np.zeros(capacity, np.int64),
            "episode": np.zeros(capacity, np.int64),
        }
        if with_maps:
            self._arrays["maps"] = np.zeros((capacity, *spec.map_shape), np.uint8)
        self._filled = self.n_demonstrated = 0

    def __len__(self) -> int:
        return self._filled

    @property
    def n_bytes(self) -> int:
        """Memory that all of it takes, whether filled or not."""
        return sum(array.nbytes for array in self._arrays.values())

    def begin(self, demonstrations: Demonstrations, *, may_hold_out: bool) -> int:
        """Put demonstrations first; returns the number of their episodes that later ones count on from.

        Without `may_hold_out` all are learned from.

        Raises:
            DataError: their maps are fractions, which the environment's are not.
        """
        maps, n = demonstrations.maps, len(demonstrations)
        if "maps" in self._arrays and (maps is None or maps.dtype != np.uint8):
            found = "no maps" if maps is None else "fractions in its maps"
            raise DataError(f"{demonstrations.label} has {found}, expected whole numbers. Use --network mlp.")
        _, numbered = np.unique(demonstrations.episode, return_inverse=True)
        for name, array in self._arrays.items():
            array[:n] = numbered if name == "episode" else getattr(demonstrations, name)
        if not may_hold_out:
            self._arrays["episode"][:n] = NO_EPISODE
        self._filled = self.n_demonstrated = n
        return int(numbered.max()) + 1 if may_hold_out else 0

    def append(self, observation: Observation, labels: NDArray[np.int64], episodes: Index) -> None:
        """Add what every agent saw and what the expert does there; `episodes` (n_envs,) are the numbers of theirs."""
        n_agents = labels.shape[1]
        rows = slice(self._filled, self._filled + labels.size)
        seen = {**observation._asdict(), "actions": labels, "episode": np.repeat(episodes, n_agents)}
        for name, array in self._arrays.items():
            array[rows] = seen[name].reshape(labels.size, *array.shape[1:])
        self._filled = rows.stop

    def frames(self) -> Demonstrations:
        """Everything so far, as views."""
        filled = {name: array[: self._filled] for name, array in self._arrays.items()}
        return Demonstrations(
            features=filled["features"],
            maps=filled.get("maps"),
            actions=filled["actions"],
            action_mask=filled["action_mask"],
            episode=filled["episode"],
            feature_names=self._spec.feature_names,
            action_names=self._spec.action_names,
            map_channels=self._spec.map_channels if "maps" in filled else (),
            seeds=(),
            label="The aggregate",
        )

    def split(self) -> tuple[Index, Index]:
        """Frames to learn from, and those of episodes held out; an episode never changes sides."""
        episode = self._arrays["episode"][: self._filled]
        held_out = (episode != NO_EPISODE) & (episode % HOLD_OUT_EVERY == 0)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def state(self) -> Arrays:
        """Copies of what was labelled after the demonstrations."""
        return {
            name: array[self.n_demonstrated : self._filled].copy() for name, array in self._arrays.items()
        }

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave, the demonstrations being there.

        Raises:
            CheckpointError: there are more frames than there is room for.
        """
        rows = slice(self.n_demonstrated, self.n_demonstrated + len(state["actions"]))
        if rows.stop > self._capacity:
            raise CheckpointError(
                f"The checkpoint holds {len(state['actions'])} labels, this run has room for "
                f"{self._capacity - self.n_demonstrated}. Resume it with the timesteps it was begun with."
            )
        for name, array in self._arrays.items():
            array[rows] = state[name]
        self._filled = rows.stop
