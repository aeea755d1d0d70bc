"""What our adapters cost over the plain environment and what more processes bring, beside Gymnasium's and EnvPool."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import task_of
from townlet_train.envs.build import build_env
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.protocol import VectorEnv
from townlet_train.envs.workers import WorkerVectorEnv
from townlet_train.errors import MissingExtraError

ENV_IDS = ("LunarLander-v3", "CartPole-v1")
N_ENVS, N_WORKERS, N_STEPS, N_RUNS = 16, 2, 16_000, 5
_ALONE, _SHARED = f"ours, {N_ENVS}", f"ours, {N_ENVS} in {N_WORKERS} processes"

Run = Callable[[], float]


def main() -> dict[str, float]:
    """Print medians over alternating runs, random actions throughout."""
    found: dict[str, float] = {}
    for env_id in ENV_IDS:
        make = partial(make_gymnasium, env_id)
        sync = SyncVectorEnv([make] * N_ENVS)
        spawned = AsyncVectorEnv([make] * N_ENVS, context="spawn")
        workers = WorkerVectorEnv(make, N_ENVS, N_WORKERS)
        native = _native(env_id)
        sync.reset(seed=0)
        spawned.reset(seed=0)
        sides: dict[str, Run] = {
            "plain environment, 1": partial(_plain, env_id),
            "ours, 1": partial(_ours, GymnasiumVectorEnv(make, 1)),
            f"Gymnasium's SyncVectorEnv, {N_ENVS}": partial(_gymnasium, env_id, sync),
            _ALONE: partial(_ours, GymnasiumVectorEnv(make, N_ENVS)),
            f"Gymnasium's AsyncVectorEnv, {N_ENVS}": partial(_gymnasium, env_id, spawned),
            _SHARED: partial(_ours, workers),
        }
        if native is not None:
            sides[f"EnvPool, {N_ENVS} on {N_WORKERS} threads"] = partial(_ours, native)
        runs: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(N_RUNS):
            for name, run in sides.items():
                runs[name].append(run())
        spawned.close()
        workers.close()
        medians = {name: statistics.median(rates) for name, rates in runs.items()}
        found |= {f"{env_id}: {name}": rate for name, rate in medians.items()}
        _report(env_id, medians)
    return found


def _report(env_id: str, medians: dict[str, float]) -> None:
    plain, ours = 1e6 / medians["plain environment, 1"], 1e6 / medians["ours, 1"]
    print(f"environments: {env_id}, {N_STEPS:,} random steps, median of {N_RUNS} alternating runs, steps/s")
    for name, rate in medians.items():
        print(f"  {name:<32} {rate:>9,.0f}")
    print(f"  overhead of one                  {ours - plain:>9.2f} us per step   asked: below 6")
    tick = {name: N_ENVS * 1e6 / medians[name] for name in (_ALONE, _SHARED)}
    print(
        f"  a tick in {N_WORKERS} processes costs  {tick[_SHARED] - tick[_ALONE] / N_WORKERS:>9.2f} us over its share"
    )


def _native(env_id: str) -> VectorEnv | None:
    """EnvPool's, where it is installed."""
    with suppress(MissingExtraError):
        return build_env(RunConfig(env=f"envpool:{env_id}"), N_ENVS, n_workers=N_WORKERS)
    return None


def _actions(env_id: str, n_envs: int) -> np.ndarray:
    n_actions = {"LunarLander-v3": 4, "CartPole-v1": 2}[env_id]
    return np.random.default_rng(0).integers(0, n_actions, (N_STEPS // n_envs, n_envs, 1))


def _plain(env_id: str) -> float:
    env, actions = make_gymnasium(env_id), _actions(env_id, 1).ravel().tolist()
    env.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return N_STEPS / (time.perf_counter() - start)


def _ours(env: VectorEnv) -> float:
    actions = _actions(task_of(env.spec.env_id), env.n_envs)
    env.reset(np.arange(env.n_envs))
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return N_STEPS / (time.perf_counter() - start)


def _gymnasium(env_id: str, env: SyncVectorEnv | AsyncVectorEnv) -> float:
    actions = _actions(env_id, env.num_envs)[..., 0]
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return N_STEPS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
