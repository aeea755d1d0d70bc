"""Whether PPO and A2C learn what Stable-Baselines3's do: many seeds each at the contract's settings, two at a time.

Final return is the mean of the last 100 training episodes, on both sides. Equal means that the bootstrap interval of
the difference contains 0 or favours us. TOWNLET_BENCH_SEEDS sets the number of seeds.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.on_policy import CONTRACT, SB3_ENV, prepare_sb3, run_side

N_SEEDS, RESAMPLES = int(os.environ.get("TOWNLET_BENCH_SEEDS", "10")), 10_000


def main() -> dict[str, float]:
    """Print final returns by seed, and the interval of the difference."""
    prepare_sb3()
    results: dict[str, float] = {}
    print(f"learning: LunarLander-v3, 50 000 steps, last 100 episodes, {N_SEEDS} seeds each")
    for algorithm in ("ppo", "a2c"):
        ours = final_returns(algorithm, "ours", Path(sys.executable))
        theirs = final_returns(algorithm, "sb3", SB3_ENV / "bin/python")
        low, high = difference_interval(ours, theirs, np.random.default_rng(0))
        print(f"  {algorithm}  townlet-train      {_shown(ours)}")
        print(f"       stable-baselines3  {_shown(theirs)}")
        print(
            f"       difference {ours.mean() - theirs.mean():+.0f} [{low:.0f}, {high:.0f}] "
            f"(asked: 95 % interval contains 0 or is above it)",
            flush=True,
        )
        results |= {f"{algorithm}_low": low, f"{algorithm}_high": high}
    return results


def final_returns(algorithm: str, side: str, python: Path) -> NDArray[np.float64]:
    """The final return of every seed, (n_seeds,)."""

    def final_return(seed: int) -> float:
        return run_side(side, python, algorithm, seed, CONTRACT)["return"]

    with ThreadPoolExecutor(2) as pool:
        return np.array(list(pool.map(final_return, range(1, N_SEEDS + 1))))


def difference_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the difference in means of two samples drawn independently."""
    means = (
        sample[rng.integers(len(sample), size=(RESAMPLES, len(sample)))].mean(axis=1)
        for sample in (first, second)
    )
    low, high = np.quantile(next(means) - next(means), [0.025, 0.975])
    return float(low), float(high)


def _shown(returns: NDArray[np.float64]) -> str:
    each = " ".join(f"{value:.0f}" for value in returns)
    return f"mean {returns.mean():5.0f}, deviation {returns.std(ddof=1):3.0f}: {each}"
