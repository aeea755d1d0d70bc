"""Gymnasium environments that each go wrong in one way, or are built for one claim."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Info = dict[str, Any]


class Counter(gymnasium.Env[Any, Any]):
    """Observes how many steps its episode has; never ends."""

    observation_space: spaces.Space[Any] = spaces.Box(0, np.inf, (1,), np.float32)
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self) -> None:
        self.count = 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.count = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        self.count += 1
        return self.observe(), 0.0, False, False, {}

    def observe(self) -> NDArray[np.float32]:
        return np.array([self.count], np.float32)


class Shifted(Counter):
    """Its actions are 5, 6 and 7, and so are its rewards."""

    action_space = spaces.Discrete(3, start=5)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        return self.observe(), float(action), False, False, {}


class Raising(Counter):
    """Cannot be stepped."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        raise ZeroDivisionError("out of numbers")


class Hidden(Counter):
    """Counts through all instances of a process what it shows, so that no replay can arrive where it was."""

    episodes = 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        Hidden.episodes += 1
        return super().reset(seed=seed, options=options)

    def observe(self) -> NDArray[np.float32]:
        return np.array([self.count * (Hidden.episodes % 2)], np.float32)


class ForeignGenerator(Counter):
    """Draws from a generator that Gymnasium did not give it; episodes last two steps."""

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Any, Info]:
        observation, info = super().reset(seed=seed)
        self.np_random = np.random.Generator(np.random.MT19937(seed))
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, self.count == 2, False, info


class Closing(Counter):
    """Counts how many of its kind are open; raises after so many steps. Episodes are cut after twenty."""

    opened = 0

    def __init__(self, lasts: int = 1_000_000) -> None:
        super().__init__()
        self._left = lasts
        Closing.opened += 1

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        self._left -= 1
        if self._left < 0:
            raise ZeroDivisionError("out of numbers")
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, self.count % 20 == 0, info

    def close(self) -> None:
        Closing.opened -= 1


class PaysNoNumber(Counter):
    """Pays NaN for its first hundred steps, then 1. Episodes are cut after twenty."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        self._steps += 1
        observation, _, terminated, _, info = super().step(action)
        return observation, np.nan if self._steps <= 100 else 1.0, terminated, self.count == 20, info


class Unflat(Counter):
    """Observations without a fixed size."""

    observation_space = spaces.Sequence(spaces.Discrete(2))


class Bandit(Counter):
    """Several choices at once."""

    action_space = spaces.MultiDiscrete([2, 2])


class Slow(Counter):
    """Takes its time."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        time.sleep(2e-3)
        return super().step(action)


class SlowAtFirst(Counter):
    """Takes half a second for its first step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        time.sleep(0.5 if self.count == 0 else 0)
        return super().step(action)


class Dying(Counter):
    """Takes its whole process with it on its third step, if that is a worker."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        if self.count == 2 and in_a_worker():
            os._exit(3)
        return super().step(action)


class RaisingElsewhere(Counter):
    """Cannot be stepped by a worker."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        if in_a_worker():
            raise ZeroDivisionError("out of numbers")
        return super().step(action)


class Unbuildable(Counter):
    """Cannot be built by a worker."""

    def __init__(self) -> None:
        if in_a_worker():
            raise RuntimeError("no licence")
        super().__init__()


class Slowpoke(Counter):
    """Takes its time over an episode of ten steps, and a worker longer."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        time.sleep(0.3 if in_a_worker() else 0.01)
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, self.count == 10, info


class Hanging(Counter):
    """A worker never returns from its third step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        while self.count == 2 and in_a_worker():
            pass
        return super().step(action)


class Sticking(Counter):
    """Cannot be closed once it was stepped."""

    def close(self) -> None:
        if self.count:
            raise RuntimeError("out of order")


class HangingFromTheStart(Counter):
    """A worker never gets it built."""

    def __init__(self) -> None:
        while in_a_worker():
            pass
        super().__init__()


def in_a_worker() -> bool:
    """Whether this process steps environments for another one."""
    return getattr(sys.modules["__main__"].__spec__, "name", "") == "townlet_train.envs.worker"
