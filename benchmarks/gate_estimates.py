"""What "about n more episodes" is worth: HOLDs of a lander's tail are given a share of what they ask for.

Candidate and release earn 276 with a deviation of 20, but for crashes in a share of the episodes, which earn anything
between -150 and 120. The tail's margin is 67; that of mean and IQM is too wide to matter. HOLDs that name no number, or
more episodes than are simulated, are left out. TOWNLET_BENCH_HOLDS sets how many HOLDs a line is of, at most.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate import settings
from townlet_train.services.gate import Measured, judge

SIZES, SHARES = (20, 32, 64, 128), (0.5, 1.0, 2.0)
CRASHES = {"3 %": 0.03, "10 %": 0.1, "25 %": 0.25}
N_HOLDS = int(os.environ.get("TOWNLET_BENCH_HOLDS", "60"))
MOST_GATES, MOST_EPISODES = 20 * N_HOLDS, 4096  # simulated for so many HOLDs, and of one gate
ASKED = settings(margin=1000.0, tail_margin=67.0)


def main() -> dict[str, float]:
    """Print the shares of HOLDs decided by so much of what they asked for."""
    print(f"gate_estimates: {N_HOLDS} HOLDs a line, chance asked for {ASKED.power:.0%}")
    found = {}
    for name, share in CRASHES.items():
        for n in SIZES:
            decided, n_holds = decided_by(share, n)
            told = "   ".join(f"{more:g}x {rate:4.0%}" for more, rate in zip(SHARES, decided, strict=True))
            print(f"  crashes {name:5} {n:4} episodes   {n_holds:3} HOLDs   decided by {told}", flush=True)
            found[f"{name}, {n}"] = decided[1]
    return found


def decided_by(crashes: float, n: int) -> tuple[list[float], int]:
    """Shares of HOLDs after `n` episodes that are decided by `SHARES` of what they ask for, and their number."""
    rng, held = np.random.default_rng(n), []
    for _ in range(MOST_GATES):
        ours, theirs = _returns(crashes, rng), _returns(crashes, rng)
        asked = judge(_measured(ours, n), _measured(theirs, n), ASKED).episodes_needed
        if asked is None or n + SHARES[-1] * asked > MOST_EPISODES:
            continue
        longer = (n + max(1, round(more * asked)) for more in SHARES)
        held.append(
            [judge(_measured(ours, m), _measured(theirs, m), ASKED).verdict != "HOLD" for m in longer]
        )
        if len(held) == N_HOLDS:
            break
    return [float(rate) for rate in np.mean(held, axis=0)] if held else [float("nan")] * len(SHARES), len(
        held
    )


def _returns(crashes: float, rng: np.random.Generator) -> NDArray[np.float64]:
    flown = rng.normal(276, 20, MOST_EPISODES)
    return np.where(rng.random(MOST_EPISODES) < crashes, rng.uniform(-150, 120, MOST_EPISODES), flown)


def _measured(returns: NDArray[np.float64], n: int) -> Measured:
    return Measured("landers", tuple(range(n)), returns[:n])
