"""What the gate promises, measured: how often it promotes falsely, and how often it sees a difference that is there.

Pairs of policies are simulated, the two returns of a seed with a part in common: `equal` draws both from one
distribution, `edge` lowers the candidate by just the margin. TOWNLET_BENCH_PAIRS sets the number of simulated gates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from townlet_train.config import GateSettings
from townlet_train.results import GateDTO
from townlet_train.services.gate import Measured, judge, sequential_looks
from townlet_train.services.statistics import cvar

N_GATES = int(os.environ.get("TOWNLET_BENCH_PAIRS", "2000"))
N_PAIRS = (64, 128)
ALPHA, MARGIN, TAIL_MARGIN = 0.05, 0.3, 3.0  # margins in units of the differences' spread
RESAMPLES = 499
EFFECTS = (0.0, 0.15, 0.3, 0.5)
SCALE = 1 / math.sqrt(2)
Draw = Callable[[int, np.random.Generator], NDArray[np.float64]]


def normal(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns with a normal spread."""
    return SCALE * rng.normal(size=n)


def heavy_tailed(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns of infinite variance: Student's t with 2 degrees of freedom."""
    return SCALE * rng.standard_t(2, size=n) / 1.2


def bimodal(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Success in seven of ten episodes, far above failure."""
    return 1.4 * (rng.random(n) < 0.7) + 0.2 * rng.normal(size=n)


def with_ties(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The same return in most episodes, and so ties in half of the pairs."""
    return np.where(rng.random(n) < 0.7, 0.0, 1.5 * rng.normal(size=n))


def with_crashes(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Good returns, and one crash in twenty episodes."""
    return 0.3 * rng.normal(size=n) - 3.0 * (rng.random(n) < 0.05)


DRAWS: dict[str, Draw] = {
    "normal": normal,
    "heavy-tailed": heavy_tailed,
    "bimodal": bimodal,
    "with ties": with_ties,
    "with crashes": with_crashes,
}
TAILS: dict[str, Draw] = {
    "a wider spread": lambda n, rng: 2 * rng.normal(size=n),
    "crashes in 20 % of episodes": lambda n, rng: normal(n, rng) - 4 * (rng.random(n) < 0.2),
}


def settings(margin: float = MARGIN, tail_margin: float = TAIL_MARGIN) -> GateSettings:
    """The gate as simulated: margins fixed, no guardrails, fewer resamples than by default."""
    return GateSettings(
        alpha=ALPHA,
        margin_absolute=margin,
        tail_margin_absolute=tail_margin,
        resamples=RESAMPLES,
        guardrails=(),
    )


def simulate(draw: Draw, n: int, effect: float, rng: np.random.Generator) -> tuple[Measured, Measured]:
    """A candidate and a release on the same n seeds, the candidate better by `effect`."""
    seeds = tuple(range(n))
    shared = 100 + rng.normal(size=n)
    ours, theirs = shared + draw(n, rng) + effect, shared + draw(n, rng)
    return Measured("candidate", seeds, ours), Measured("release", seeds, theirs)


def rates(
    decide: Callable[[Measured, Measured, GateSettings], GateDTO],
    draw: Draw,
    n: int,
    effect: float,
    n_gates: int,
    seed: int = 1,
) -> tuple[float, float, float, float]:
    """Shares of simulated gates that say PASS, PASS and superior, FAIL, and the mean number of episodes used."""
    rng, asked = np.random.default_rng(seed), settings()
    results = [decide(*simulate(draw, n, effect, rng), asked) for _ in range(n_gates)]
    passed = sum(result.verdict == "PASS" for result in results)
    superior = sum(result.superior for result in results)
    failed = sum(result.verdict == "FAIL" for result in results)
    episodes = sum(result.episodes for result in results)
    return passed / n_gates, superior / n_gates, failed / n_gates, episodes / n_gates


def tail_edge(deeper: Draw, n: int, n_gates: int) -> float:
    """The share of PASS for a candidate whose tail is deeper than a normal release's by just the tail's margin."""
    rng = np.random.default_rng(4)
    ours, theirs = _pair_of(deeper, 2_000_000, rng)
    asked = settings(margin=10.0, tail_margin=cvar(theirs.returns) - cvar(ours.returns))
    passed = [judge(*_pair_of(deeper, n, rng), asked).verdict == "PASS" for _ in range(n_gates)]
    return sum(passed) / n_gates


def _pair_of(deeper: Draw, n: int, rng: np.random.Generator) -> tuple[Measured, Measured]:
    shared, seeds = 100 + rng.normal(size=n), tuple(range(n))
    return Measured("candidate", seeds, shared + deeper(n, rng)), Measured(
        "release", seeds, shared + normal(n, rng)
    )


def main() -> dict[str, float]:
    """Print both tables; the rates that must not exceed alpha are returned."""
    error = NormalDist().inv_cdf(0.975) * math.sqrt(ALPHA * (1 - ALPHA) / N_GATES)
    print(
        f"gate: false promotions in {N_GATES} simulated gates each, alpha {ALPHA:.0%}, sampling error {error:.1%}"
    )
    worst = 0.0
    for method, decide in (("fixed", judge), ("sequential", sequential_looks)):
        print(
            f"  {method:<11} {'pairs':>5}  equal: superior     FAIL   edge: PASS   equal: PASS  episodes",
            flush=True,
        )
        for name, draw in DRAWS.items():
            for n in N_PAIRS if method == "fixed" else N_PAIRS[-1:]:
                passed, superior, failed, episodes = rates(decide, draw, n, 0.0, N_GATES)
                at_edge = rates(decide, draw, n, -MARGIN, N_GATES, seed=2)[0]
                worst = max(worst, superior, at_edge)
                shares = f"{superior:>16.1%} {failed:>8.1%} {at_edge:>12.1%} {passed:>13.1%}"
                print(f"  {name:<12} {n:>4} {shares} {episodes:>9.0f}", flush=True)
    print("  the tail deeper by just its margin: PASS")
    for name, deeper in TAILS.items():
        for n in N_PAIRS:
            passed = tail_edge(deeper, n, N_GATES)
            worst = max(worst, passed)
            print(f"  {name:<28} {n:>4} {passed:>8.1%}", flush=True)
    print(f"power: shares of {N_GATES // 8} gates that say PASS / PASS and superior, by effect over spread")
    print(f"  {'fixed':<12} pairs" + "".join(f"{effect:>16.2f}" for effect in EFFECTS), flush=True)
    for name, draw in DRAWS.items():
        for n in (64, 128, 256):
            found = [rates(judge, draw, n, effect, N_GATES // 8, seed=3)[:2] for effect in EFFECTS]
            cells = "".join(f"{f'{passed:.0%} / {superior:.0%}':>16}" for passed, superior in found)
            print(f"  {name:<12} {n:>5}{cells}", flush=True)
    print(f"  the largest false rate is {worst:.1%} (aim {ALPHA:.0%})")
    return {"false_promotion": worst}
