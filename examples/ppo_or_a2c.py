"""PPO or A2C on the lander? Five seeds each with the usual settings, compared by runs (needs torch and box2d).

python examples/ppo_or_a2c.py --output ppo_or_a2c

trains ten runs of 50 000 steps, in place of earlier ones, and prints what `townlet-train compare ppo_or_a2c/*` prints.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from townlet_train.config import RunConfig
from townlet_train.orchestrator import run_strategy
from townlet_train.render import render
from townlet_train.results import CompareDTO
from townlet_train.services.comparison import compare_runs

PARAMS: dict[str, dict[str, float]] = {
    "ppo": {"n_steps": 2048, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4, "gae_lambda": 0.95},
    "a2c": {"n_steps": 5, "learning_rate": 7e-4, "gae_lambda": 1.0},
}


def main(output: Path, seeds: int, timesteps: int, episodes: int) -> CompareDTO:
    """What the methods reach on seeds 1 to `seeds`, each run measured on the same held-out episodes."""
    runs = []
    for seed in range(1, seeds + 1):
        for strategy, params in PARAMS.items():
            runs.append(output / f"{strategy}_seed{seed}")
            run_strategy(
                strategy,
                {**params, "n_envs": 1, "timesteps": timesteps, "evaluation_episodes": episodes},
                config=RunConfig(env="LunarLander-v3", seed=seed),
                run_dir=runs[-1],
                overwrite=True,
            )
    return compare_runs(runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("ppo_or_a2c"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--timesteps", type=int, default=50_000)
    parser.add_argument("--episodes", type=int, default=100)
    render(main(**vars(parser.parse_args())), sys.stdout)
