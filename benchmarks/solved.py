"""How often, and how soon, `ppo --preset lunarlander` solves the lander: as a user would run it, evaluation included.

Solved means what `converged` means: the lower 95 % bound of the mean return over 100 held-out episodes is at least 200.
TOWNLET_BENCH_SEEDS sets the number of seeds.
"""

from __future__ import annotations

import os
import statistics

from benchmarks.commands import train

N_SEEDS, MOST_SECONDS = int(os.environ.get("TOWNLET_BENCH_SEEDS", "10")), 120
FEWEST = 0.9  # of the seeds


def main() -> dict[str, float]:
    """Print each seed's held-out return and time, and how many are solved."""
    print("solved: ppo --preset lunarlander, 100 held-out episodes, 95 % interval")
    seconds: list[float] = []
    solved = 0
    for seed in range(1, N_SEEDS + 1):
        result, took = train("ppo", seed, "--preset", "lunarlander")
        seconds.append(took)
        evaluation, solved = result["evaluation"], solved + result["converged"]
        bounds = f"[{evaluation['ci_low']:.0f}, {evaluation['ci_high']:.0f}]"
        print(f"  seed {seed:2}   {evaluation['mean']:4.0f} {bounds}   {seconds[-1]:.0f} s", flush=True)
    middle = statistics.median(seconds)
    print(
        f"  {solved} of {N_SEEDS} (asked {FEWEST:.0%}), median {middle:.0f} s [{min(seconds):.0f}, {max(seconds):.0f}] "
        f"(aim {MOST_SECONDS} s)",
        flush=True,
    )
    return {"solved": solved / N_SEEDS, "seconds": middle}
