"""The other side; runs in the environment where Stable-Baselines3 is, without townlet-train."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time

import numpy as np
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env


def main(algorithm: str, env: str, seed: str, settings: str) -> None:
    """Train with params in JSON, whose names and other defaults are this library's own."""
    torch.set_num_threads(1)
    params = json.loads(settings)
    timesteps, interval, n_envs = (
        params.pop(name) for name in ("timesteps", "checkpoint_interval", "n_envs")
    )
    environments = make_vec_env(env, n_envs, seed=int(seed))
    build = {"ppo": PPO, "a2c": A2C}[algorithm]
    model = build("MlpPolicy", environments, seed=int(seed), stats_window_size=100, **params)
    with tempfile.TemporaryDirectory() as folder:
        started, cpu_started = time.perf_counter(), time.process_time()
        model.learn(timesteps, callback=CheckpointCallback(interval // n_envs, folder))
        rate = model.num_timesteps / (time.perf_counter() - started)
        cpu_rate = model.num_timesteps / (time.process_time() - cpu_started)
    measured = {
        "rate": rate,
        "cpu_rate": cpu_rate,
        "return": float(np.mean([episode["r"] for episode in model.ep_info_buffer])),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
