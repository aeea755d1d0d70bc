"""The other side of the ppo benchmark; runs in the environment where Stable-Baselines3 is, without townlet-train."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.monitor import Monitor


def main(env: str, seed: str, timesteps: str) -> None:
    """Train at the contract's settings, which are the library's defaults, with a checkpoint every 1 000 steps."""
    torch.set_num_threads(1)
    monitor = Monitor(gymnasium.make(env))
    model = PPO("MlpPolicy", monitor, seed=int(seed), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        model.learn(int(timesteps), callback=CheckpointCallback(1000, folder))
        rate = model.num_timesteps / (time.perf_counter() - started)
    measured = {
        "rate": rate,
        "return": float(np.mean(monitor.get_episode_rewards()[-100:])),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
