"""What the gate promises, measured: how often it promotes falsely, and how often it sees a difference that is there.

Pairs of policies are simulated, the two returns of a seed with a part in common: `equal` draws both from one
distribution, `edge` lowers the candidate by just the margin. TOWNLET_BENCH_PAIRS sets the number of simulated gates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.config import GateSettings
from townlet_train.results import GateDTO
from townlet_train.services.gate import Measured, judge, sequential_looks
from townlet_train.services.statistics import cvar

N_GATES = int(os.environ.get("TOWNLET_BENCH_PAIRS", "2000"))
N_PAIRS = (64, 128)
ALPHA, MARGIN, TAIL_MARGIN = 0.05, 0.3, 3.0  # margins in units of the differences' spread
RESAMPLES = 299
EFFECTS = (0.0, 0.15, 0.3, 0.5)
SCALE = 1 / math.sqrt(2)
Decide = Callable[[Measured, Measured, GateSettings], GateDTO]
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
METHODS: dict[str, Decide] = {"fixed": judge, "sequential": sequential_looks}
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


class Rates(NamedTuple):
    """What simulated gates said, as shares, and the episodes they used, as a mean."""

    passed: float
    superior: float
    failed: float
    episodes: float


def rates(
    decide: Decide,
    draw: Draw,
    n: int,
    effect: float,
    n_gates: int,
    seed: int = 1,
) -> Rates:
    """What `n_gates` simulated gates say of a candidate that is better by `effect`."""
    rng, asked = np.random.default_rng(seed), settings()
    results = [decide(*simulate(draw, n, effect, rng), asked) for _ in range(n_gates)]
    passed = sum(result.verdict == "PASS" for result in results)
    superior = sum(result.superior for result in results)
    failed = sum(result.verdict == "FAIL" for result in results)
    episodes = sum(result.episodes for result in results)
    return Rates(passed / n_gates, superior / n_gates, failed / n_gates, episodes / n_gates)


def tail_edge(name: str, n: int, n_gates: int) -> float:
    """The share of PASS for a candidate whose tail is deeper than a normal release's by just the tail's margin."""
    rng = np.random.default_rng(4)
    ours, theirs = _deeper_pair(name, 2_000_000, rng)
    asked = settings(margin=10.0, tail_margin=cvar(theirs.returns) - cvar(ours.returns))
    passed = [judge(*_deeper_pair(name, n, rng), asked).verdict == "PASS" for _ in range(n_gates)]
    return sum(passed) / n_gates


def _deeper_pair(name: str, n: int, rng: np.random.Generator) -> tuple[Measured, Measured]:
    shared, seeds = 100 + rng.normal(size=n), tuple(range(n))
    ours, theirs = shared + TAILS[name](n, rng), shared + normal(n, rng)
    return Measured("candidate", seeds, ours), Measured("release", seeds, theirs)


def _false_rates(method: str, name: str, n: int) -> tuple[Rates, Rates]:
    """What is said of an equal candidate, and of one that is worse by just the margin."""
    decide, draw = METHODS[method], DRAWS[name]
    return rates(decide, draw, n, 0.0, N_GATES), rates(decide, draw, n, -MARGIN, N_GATES, seed=2)


def _power(name: str, n: int) -> list[Rates]:
    return [rates(judge, DRAWS[name], n, effect, N_GATES // 10, seed=3) for effect in EFFECTS]


def main() -> dict[str, float]:
    """Print the tables; the largest of the rates that must not exceed alpha is returned."""
    error = NormalDist().inv_cdf(0.975) * math.sqrt(ALPHA * (1 - ALPHA) / N_GATES)
    print(
        f"gate: {N_GATES} simulated gates a line, alpha {ALPHA:.0%}; at alpha the sampling error is {error:.1%}"
    )
    worst = 0.0
    with ProcessPoolExecutor() as pool:
        for method in METHODS:
            cases = [(name, n) for name in DRAWS for n in (N_PAIRS if method == "fixed" else N_PAIRS[-1:])]
            print(f"  {method}")
            print(
                "  returns       pairs   equal: superior    FAIL   at the margin: PASS   equal: PASS   pairs used"
            )
            found = pool.map(partial(_false_rates, method), *zip(*cases, strict=True))
            for (name, n), (equal, edge) in zip(cases, found, strict=True):
                worst = max(worst, equal.superior, edge.passed)
                print(
                    f"  {name:<13} {n:>5} {equal.superior:>17.1%} {equal.failed:>7.1%} {edge.passed:>21.1%} "
                    f"{equal.passed:>13.1%} {equal.episodes:>12.0f}",
                    flush=True,
                )
        print("  the tail deeper by just its margin: PASS")
        deeper = [(name, n) for name in TAILS for n in N_PAIRS]
        tails = pool.map(partial(tail_edge, n_gates=N_GATES), *zip(*deeper, strict=True))
        for (name, n), passed in zip(deeper, tails, strict=True):
            worst = max(worst, passed)
            print(f"  {name:<28} {n:>4} {passed:>8.1%}", flush=True)
        print(
            f"  power: PASS / superior in {N_GATES // 10} gates each, by the true difference over its spread"
        )
        print("  returns       pairs" + "".join(f"{effect:>14.2f}" for effect in EFFECTS))
        sizes = [(name, n) for name in DRAWS for n in (64, 256)]
        for (name, n), row in zip(sizes, pool.map(_power, *zip(*sizes, strict=True)), strict=True):
            cells = "".join(f"{f'{one.passed:.0%} / {one.superior:.0%}':>14}" for one in row)
            print(f"  {name:<13} {n:>5}{cells}", flush=True)
    print(f"  the largest false rate is {worst:.1%} (aim {ALPHA:.0%})")
    return {"false_promotion": worst}
