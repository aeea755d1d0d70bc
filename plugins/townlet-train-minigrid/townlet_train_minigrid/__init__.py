"""MiniGrid's rooms by short names, and who walks through the empty ones: a plugin of townlet-train.

Only rooms with one and the same mission are here: what an agent is told in words is not among the features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from townlet_train.api import hookimpl

if TYPE_CHECKING:
    from townlet_train.api import EnvSpec, Experts, Policy

TOWNLET_TRAIN_API = 1
__all__ = ["townlet_train_environments", "townlet_train_experts"]

EMPTY = ("Empty-5x5", "Empty-6x6", "Empty-8x8", "Empty-16x16", "Empty-Random-5x5", "Empty-Random-6x6")
ROOMS = (
    *EMPTY,
    "DistShift1",
    "DistShift2",
    "DoorKey-5x5",
    "DoorKey-6x6",
    "DoorKey-8x8",
    "DoorKey-16x16",
    "FourRooms",
    "LavaCrossingS9N1",
    "LavaCrossingS9N2",
    "LavaCrossingS9N3",
    "LavaCrossingS11N5",
    "LavaGapS5",
    "LavaGapS6",
    "LavaGapS7",
    "MultiRoom-N2-S4",
    "MultiRoom-N6",
    "SimpleCrossingS9N1",
    "SimpleCrossingS9N2",
    "SimpleCrossingS9N3",
    "SimpleCrossingS11N5",
    "Unlock",
)


@hookimpl
def townlet_train_environments() -> dict[str, str]:
    """Rooms such as minigrid-doorkey-5x5; MiniGrid is imported when one is built."""
    return {f"minigrid-{room.lower()}": f"townlet_train_minigrid.envs:{room_id(room)}" for room in ROOMS}


@hookimpl
def townlet_train_experts() -> Experts:
    """Along the walls, in the rooms where that leads to the goal."""
    return {room_id(room): _along_the_wall for room in EMPTY}


def room_id(room: str) -> str:
    """The id under which `envs` registers a room with Gymnasium."""
    return f"MiniGridFeatures-{room}-v0"


def _along_the_wall(spec: EnvSpec) -> Policy:
    from townlet_train_minigrid.walls import AlongTheWall

    return AlongTheWall()
