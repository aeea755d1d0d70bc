"""The exact state of an environment that cannot be copied: how its episode began, and every action since.

An environment is a function of its generator before `reset` and of the actions after it. So the state is those two;
to come back to it, the generator is set, the environment reset and the actions replayed, and what is then observed is
compared bit for bit with what was observed when the state was saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from townlet_train.errors import InexactStateError

State = dict[str, NDArray[Any]]

WORDS = 6  # a PCG64 generator: 128 bits of state, 128 of increment, a flag and a half-used draw
UNKNOWN = np.zeros(WORDS, np.uint64)
LOW = (1 << 64) - 1


class Journal:
    """What one environment's episode is made of; it grows by an entry of `actions` with every step until the next."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._base = env.unwrapped
        self._name = env.spec.id if env.spec is not None else type(self._base).__name__
        self._seed, self._generator = -1, UNKNOWN
        self.actions: list[Any] = []

    def begin_seeded(self, seed: int) -> None:
        """An episode begins with `reset(seed=seed)`."""
        self._seed, self._generator = seed, UNKNOWN
        self.actions.clear()

    def begin(self) -> None:
        """An episode is about to begin with `reset()`, from the generator as it is."""
        self._seed, self._generator = -1, pack_generator(self._base)
        self.actions.clear()

    def continue_from(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The episode is that of one environment's saved state."""
        self._seed, self._generator = int(state["seeds"][0]), state["generators"][0].copy()
        actions = state["actions"]
        self.actions = actions.tolist() if actions.ndim == 1 else [*actions.copy()]

    def state(self, features: NDArray[np.float32], dtype: np.dtype[Any], shape: tuple[int, ...]) -> State:
        """What a replay needs and must arrive at, for actions of one dtype and shape; leading axes of 1, or actions.

        Raises:
            InexactStateError: the episode began from a generator that cannot be saved.
        """
        if self._seed < 0 and not self._generator.any():
            raise InexactStateError(
                f"{self._name} draws from a generator other than PCG64, which Gymnasium gives every environment, "
                f"so its state cannot be saved."
            )
        return {
            "seeds": np.array([self._seed], np.int64),
            "generators": self._generator[None].copy(),
            "lengths": np.array([len(self.actions)], np.int64),
            "actions": np.array(self.actions, dtype).reshape(-1, *shape),
            "generators_now": pack_generator(self._base)[None],
            "observations": features[None].copy(),
        }


def start_episode(
    env: gymnasium.Env[Any, Any], state: Mapping[str, NDArray[Any]]
) -> tuple[Any, dict[str, Any]]:
    """Reset an environment as the episode of one environment's state began; returns what `reset` does."""
    seed = int(state["seeds"][0])
    if seed >= 0:
        return env.reset(seed=seed)
    env.unwrapped.np_random = unpack_generator(state["generators"][0])
    return env.reset()


def check_arrival(
    env: gymnasium.Env[Any, Any], features: NDArray[np.float32], state: Mapping[str, NDArray[Any]]
) -> None:
    """Raise `InexactStateError` unless observation and generator are those that were saved, bit for bit."""
    saved = state["observations"][0]
    if features.tobytes() != saved.tobytes():
        differ = int(np.flatnonzero(features.view(np.uint32) != saved.view(np.uint32))[0])
        raise InexactStateError(
            f"After replaying {len(state['actions'])} actions, observation {differ} is {features[differ]:.9g} "
            f"where {saved[differ]:.9g} was saved. The environment depends on more than its generator and its actions."
        )
    if not np.array_equal(pack_generator(env.unwrapped), state["generators_now"][0]):
        raise InexactStateError(
            f"After replaying {len(state['actions'])} actions, the environment's generator is not where it was."
        )


def pack_generator(base: gymnasium.Env[Any, Any]) -> NDArray[np.uint64]:
    """The environment's generator as (6,) words; zeros when it has none of the kind Gymnasium gives it."""
    generator = getattr(base, "np_random", None)
    if not isinstance(generator, np.random.Generator):
        return UNKNOWN.copy()
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        return UNKNOWN.copy()
    inner = state["state"]
    words = (inner["state"] & LOW, inner["state"] >> 64, inner["inc"] & LOW, inner["inc"] >> 64)
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def unpack_generator(words: NDArray[np.uint64]) -> np.random.Generator:
    """The generator that `pack_generator` described."""
    low, high, inc_low, inc_high, has_half, half = (int(word) for word in words)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_half,
        "uinteger": half,
    }
    return np.random.Generator(bits)


def join_states(states: Sequence[State]) -> State:
    """The state of several environments, of each one's own."""
    return {name: np.concatenate([state[name] for state in states]) for name in states[0]}


def split_state(state: Mapping[str, NDArray[Any]]) -> Iterator[State]:
    """The state of each environment, of all."""
    ends = np.cumsum(state["lengths"])
    for index, (end, length) in enumerate(zip(ends, state["lengths"], strict=True)):
        rows = {name: array[index : index + 1] for name, array in state.items() if name != "actions"}
        yield rows | {"actions": state["actions"][end - length : end]}
