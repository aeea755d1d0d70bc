"""Agent-ticks per second of the town on one core: 64 towns of 6, observations and masks included."""

from __future__ import annotations

import statistics
import time

import numpy as np

from townlet_train.config.town import TownConfig
from townlet_train.envs.town import TownVectorEnv
from townlet_train.policies.scripted import scripted_policy

N_TOWNS, N_TICKS, N_RUNS = 64, 2_000, 7
TARGET = 2.0e6


def main() -> dict[str, float]:
    """Print the median and spread over runs; the expert drives, its time is reported apart."""
    env = TownVectorEnv(TownConfig(), N_TOWNS)
    runs = [_run(env) for _ in range(N_RUNS + 1)][1:]
    stepping = [env.n_envs * env.n_agents * N_TICKS / step_seconds for step_seconds, _ in runs]
    driven = [env.n_envs * env.n_agents * N_TICKS / (step + act) for step, act in runs]
    result = {
        "agent_ticks_per_sec": statistics.median(stepping),
        "agent_ticks_per_sec_with_expert": statistics.median(driven),
        "bytes_per_town": env.nbytes / env.n_envs,
    }
    print(f"town: {N_TOWNS} towns of {env.n_agents}, {N_TICKS} ticks, one core, median of {N_RUNS} runs")
    print(f"  step, observations, masks   {_millions(stepping)}   asked: {TARGET / 1e6:.1f}")
    print(f"  and the expert's actions    {_millions(driven)}")
    print(
        f"  memory                      {result['bytes_per_town'] / 1024:.1f} KiB per town, linear in towns"
    )
    return result


def _run(env: TownVectorEnv) -> tuple[float, float]:
    """Seconds spent stepping and seconds spent choosing actions."""
    expert, unused = scripted_policy("expert", env.spec), np.zeros((env.n_envs, env.n_agents))
    observation = env.reset(np.arange(env.n_envs))
    stepping = acting = 0.0
    for _ in range(N_TICKS):
        start = time.perf_counter()
        actions = expert.act(observation, unused)
        chosen = time.perf_counter()
        observation = env.step(actions).observation
        stepping += time.perf_counter() - chosen
        acting += chosen - start
    return stepping, acting


def _millions(rates: list[float]) -> str:
    """Median and spread in millions per second."""
    return f"{statistics.median(rates) / 1e6:.2f} M agent-ticks/s [{min(rates) / 1e6:.2f}, {max(rates) / 1e6:.2f}]"


if __name__ == "__main__":
    main()
