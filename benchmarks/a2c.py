"""A2C, a plugin, beside Stable-Baselines3; see `on_policy`."""

from __future__ import annotations

from benchmarks.on_policy import CONTRACT, Setting, measure


def main() -> dict[str, float]:
    """Measure the contract's settings."""
    title = "1 env, n_steps 5, 50 000 steps, a checkpoint every 1 000"
    return measure("a2c", [Setting(title, CONTRACT, ratio=8)])
