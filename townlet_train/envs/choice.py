"""How many processes step a set of environments, by what a step costs. The numbers are the same whatever is chosen."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.protocol import Actions, EnvSpec, VectorEnv

LOAD = Path("/proc/loadavg")
GLANCES, BETWEEN_GLANCES = 9, 2e-3  # seconds
LONG_ENOUGH = 0.03  # seconds of measuring
FEWEST_STEPS, MOST_STEPS = 5, 300
TOGETHER = (
    40e-6  # seconds a tick takes longer when two processes step it, `python -m benchmarks environments`
)
EACH_WORKER = 5e-6  # seconds to send one more worker a word and hear one back
WORTH_IT = 0.65  # of a tick in one process: what a tick must take at most


def choose_processes(step_sec: float, n_envs: int, n_cores: int) -> int:
    """The number of processes that should step `n_envs` environments, when one step of one takes `step_sec`.

    >>> choose_processes(30e-6, n_envs=16, n_cores=2), choose_processes(30e-6, n_envs=4, n_cores=2)
    (2, 1)
    """

    def tick_sec(n_processes: int) -> float:
        together = TOGETHER + EACH_WORKER * (n_processes - 1) if n_processes > 1 else 0.0
        return -(-n_envs // n_processes) * step_sec + together

    best = min(range(1, max(1, min(n_cores, n_envs)) + 1), key=tick_sec)
    return best if tick_sec(best) <= WORTH_IT * tick_sec(1) else 1


def measure_step(env: VectorEnv) -> float:
    """Seconds that a step of `env` takes, the median over some legal random actions; moves `env` on."""
    rng, observation = np.random.default_rng(0), env.reset(np.arange(env.n_envs))
    taken: list[float] = []
    while len(taken) < FEWEST_STEPS or (len(taken) < MOST_STEPS and sum(taken) < LONG_ENOUGH):
        actions = _random_actions(env.spec, observation.action_mask, rng)
        started = time.perf_counter()
        observation = env.step(actions).observation
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def free_cores() -> int:
    """Cores this process may run on that nobody else keeps busy at the moment, its own among them; at least 1."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = statistics.median_low([_running_elsewhere() for _ in range(GLANCES)]) if usable > 1 else 0
    return max(1, min(usable, (os.cpu_count() or 1) - busy))


def _running_elsewhere() -> int:
    """Threads of other processes that run or wait for a core, a moment from now; 0 where nobody tells."""
    time.sleep(BETWEEN_GLANCES)
    try:
        running = LOAD.read_text().split()[3].partition("/")[0]
    except (OSError, IndexError):
        return 0
    return int(running) - 1


def _random_actions(spec: EnvSpec, mask: NDArray[np.bool_], rng: np.random.Generator) -> Actions:
    """One action per slot, (n_envs, n_agents, *spec.action_shape)."""
    if spec.action_names:
        legal: Actions = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=-1)
        return legal
    return rng.standard_normal((*mask.shape[:2], *spec.action_shape)).astype(np.float32)
