"""Gymnasium environments that say on standard error what they are stepped for, as `tests.busy_envs:Busy-v0`.

Those that are stuck do not come back from the first step they have told of; one of them cannot even be interrupted.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

FIRST_EVALUATED = 20001  # the seeds from here on are held out
LENGTH, TOLD_AT = 20, 70  # steps: of an episode, and of training before anything is said
LONG = 600.0  # seconds


class Busy(gymnasium.Env[Any, Any]):
    """Shows a random number, pays it when the action is right, and takes a millisecond for it."""

    observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (1,), np.float32)
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self, stuck: str = "", deaf: bool = False) -> None:
        self._stuck, self._deaf = stuck, deaf
        self._phase, self._steps, self._in_episode = "collecting", 0, 0
        self._told: set[str] = set()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self._phase = "evaluating" if seed >= FIRST_EVALUATED else "collecting"
        self._in_episode = 0
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._in_episode += 1
        if self._stuck == self._phase and self._due:
            self._hang()
        self._tell()
        time.sleep(0.001)
        right = float(self._shown > 0) == float(action)
        return self._observed(), float(right), False, self._in_episode >= LENGTH, {}

    @property
    def _due(self) -> bool:
        """Whether it is time to say something that was not said before."""
        begun = self._phase == "evaluating" or self._steps >= TOLD_AT
        return begun and self._phase not in self._told

    def _tell(self) -> None:
        if self._due:
            self._told.add(self._phase)
            say(self._phase)

    def _hang(self) -> None:
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            try:
                self._tell()
                time.sleep(1.0)
            except KeyboardInterrupt:
                if not self._deaf:
                    raise
                say("swallowed")

    def _observed(self) -> Any:
        self._shown = self.np_random.uniform(-1, 1)
        return np.array([self._shown], np.float32)


def say(word: str) -> None:
    sys.stderr.write(f"{word}\n")
    sys.stderr.flush()


for name, options in {
    "Busy-v0": {},
    "StuckCollecting-v0": {"stuck": "collecting"},
    "StuckEvaluating-v0": {"stuck": "evaluating"},
    "Deaf-v0": {"stuck": "collecting", "deaf": True},
}.items():
    gymnasium.register(name, Busy, kwargs=options)
