"""Random numbers inside a town: each stream is one 64-bit word of its state, so saving the state saves the stream."""

from __future__ import annotations

import numpy as np

from townlet_train.sim.kernels import Record, kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


@kernel
def _mix(word: np.uint64) -> np.uint64:
    """Steele, Lea and Flood 2014, splitmix64: the output function."""
    word = (word ^ (word >> np.uint64(30))) * _MIX_1
    word = (word ^ (word >> np.uint64(27))) * _MIX_2
    return word ^ (word >> np.uint64(31))


@kernel
def world_uniform(town: Record) -> float:
    """The next number in [0, 1) of the town's world stream."""
    town.rng_world = town.rng_world + _GOLDEN
    return (_mix(town.rng_world) >> np.uint64(11)) * _TO_UNIT


@kernel
def event_uniform(town: Record) -> float:
    """The next number in [0, 1) of the town's perturbation stream."""
    town.rng_events = town.rng_events + _GOLDEN
    return (_mix(town.rng_events) >> np.uint64(11)) * _TO_UNIT


@kernel
def world_below(town: Record, n: int) -> int:
    """A uniform integer in [0, n) of the town's world stream."""
    return int(world_uniform(town) * n)
