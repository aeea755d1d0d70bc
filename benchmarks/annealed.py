"""What `townlet-train anneal` reaches with its defaults, as a user would run it, the gate included.

The lander is solved where the lower 95 % bound of the mean return over 100 held-out episodes is at least 200. On the
town the gate's own towns, which nothing trained on or selected by, tell return, faints and conflicts.
TOWNLET_BENCH_SEEDS sets the number of seeds.
"""

from __future__ import annotations

import os
import statistics

from benchmarks.commands import run, train

N_SEEDS = int(os.environ.get("TOWNLET_BENCH_SEEDS", "10"))
SECONDS_ON_THE_LANDER = 20
ABOVE_THE_EXPERT, MOST_FAINTS, FEWEST = 40, 1.0, 0.9


def main() -> dict[str, float]:
    """Print every seed's end, on the lander and on the town."""
    return {**on_the_lander(), **on_the_town()}


def on_the_lander() -> dict[str, float]:
    """How often, and how soon, the lander is solved."""
    print(f"annealed: anneal --env LunarLander-v3, {N_SEEDS} seeds")
    seconds, solved = [], 0
    for seed in range(1, N_SEEDS + 1):
        result, took = train("anneal", seed, "--env", "LunarLander-v3")
        seconds.append(took)
        solved += result["converged"]
        low, high = result["evaluation"]["ci_low"], result["evaluation"]["ci_high"]
        print(
            f"  seed {seed:2}   {result['evaluation']['mean']:4.0f} [{low:.0f}, {high:.0f}]   "
            f"{result['status']}   {took:.0f} s",
            flush=True,
        )
    middle = statistics.median(seconds)
    print(
        f"  {solved} of {N_SEEDS} solved (asked all), median {middle:.0f} s (aim {SECONDS_ON_THE_LANDER} s)",
        flush=True,
    )
    return {"solved": solved / N_SEEDS, "seconds": middle}


def on_the_town() -> dict[str, float]:
    """How far past the expert the town's policies get, and at what price."""
    expert = run("evaluate", "--policy", "expert", "--episodes", "256", "--seed", "30000000")
    least = expert["mean"] + ABOVE_THE_EXPERT
    print(f"annealed: anneal on the town, {N_SEEDS} seeds; the expert earns {expert['mean']:.1f}")
    held, seconds = 0, []
    for seed in range(1, N_SEEDS + 1):
        result, took = train("anneal", seed)
        seconds.append(took)
        actions = [stage["action"] for stage in result["stages"] if stage["action"]]
        if result["gate"] is None:  # the guardrails ended it
            print(f"  seed {seed:2}   {result['status']}   {took:.0f} s   {' '.join(actions)}", flush=True)
            continue
        criteria = {found["criterion"]: found["candidate"] for found in result["gate"]["criteria"]}
        kept = criteria["mean"] >= least and criteria["faint"] <= MOST_FAINTS and result["status"] == "PASS"
        held += kept
        print(
            f"  seed {seed:2}   return {criteria['mean']:5.1f}   faints {criteria['faint']:.2f} per 10 000   "
            f"conflicts {criteria['queue_conflict'] / 10:.1f} per 1 000   {result['status']}   {took:.0f} s   "
            f"{' '.join(actions)}",
            flush=True,
        )
    middle = statistics.median(seconds)
    print(
        f"  {held} of {N_SEEDS} at least {least:.1f} with at most {MOST_FAINTS:g} faint and PASS (asked {FEWEST:.0%}), "
        f"median {middle:.0f} s",
        flush=True,
    )
    return {"town_held": held / N_SEEDS, "town_seconds": middle}
