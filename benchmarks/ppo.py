"""PPO beside Stable-Baselines3; see `on_policy`."""

from __future__ import annotations

from benchmarks.on_policy import CONTRACT, Setting, measure

TUNED = {
    "timesteps": 1_000_000,
    "n_envs": 16,
    "checkpoint_interval": 100_000,
    "n_steps": 1024,
    "n_epochs": 4,
} | {
    "gamma": 0.999,
    "gae_lambda": 0.98,
    "ent_coef": 0.01,
}


def main(device: str = "cpu") -> dict[str, float]:
    """Measure the contract's settings, and those that rl-baselines3-zoo publishes, with both sides on a device."""
    return measure(
        "ppo",
        [
            Setting(
                "1 env, n_steps 2048, batch 64, 10 epochs, 50 000 steps, a checkpoint every 1 000",
                CONTRACT,
                ratio=8,
                share=0.35,
            ),
            Setting(
                "16 envs, n_steps 1024, batch 64, 4 epochs, 1 000 000 steps (the zoo's settings)",
                TUNED,
                ratio=6,
                n_runs=2,
            ),
        ],
        device,
    )
