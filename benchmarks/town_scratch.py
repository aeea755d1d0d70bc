"""PPO from nothing on the town, by the preset `town-ppo`, beside the scripted expert on held-out towns.

TOWNLET_BENCH_SEEDS (or arguments) names the training seeds, e.g. `python -m benchmarks.town_scratch 1 2 3`. The
difference is paired: both act in the same towns. CPU seconds are those of all threads.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from townlet_train.config import RunConfig, load
from townlet_train.envs.streams import stream
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import discover
from townlet_train.results import EvaluationDTO, PPOTrainingResultDTO
from townlet_train.services.evaluation import evaluate_as_configured
from townlet_train.services.statistics import paired_difference

SEEDS = "1 2 3"
PRESET = "town-ppo"
N_TOWNS = 64  # held out
MOST_SECONDS = 120


class Run(NamedTuple):
    """One training seed."""

    difference: float  # mean return less the expert's, in the same towns
    low: float  # the lower end of its 95 % interval
    faints: float  # per 10 000 agent-ticks
    seconds: float  # of training, by the clock
    cpu_seconds: float


def main(seeds: list[str] | None = None) -> dict[str, float]:
    """Print one line per training seed; returns the worst of each column."""
    settings = load(preset=PRESET, environ={}, sections=lambda: discover().params())
    evaluation = settings.config.evaluation.model_copy(update={"episodes": N_TOWNS})
    config = settings.config.model_copy(update={"evaluation": evaluation})
    expert = evaluate_as_configured(config, scripted="expert")
    first, last = expert.seeds[0], expert.seeds[-1]
    print(f"town_scratch: preset {PRESET}, {len(expert.seeds)} held-out towns (seeds {first} to {last})")
    print(
        f"  expert   return {expert.mean:6.1f}  faints {10 * expert.events['faint']:5.2f} per 10 000 agent-ticks"
    )
    chosen = seeds or os.environ.get("TOWNLET_BENCH_SEEDS", SEEDS).split()
    params = settings.section("ppo")
    runs = [_run(config.model_copy(update={"seed": int(seed)}), params, expert) for seed in chosen]
    result = {
        "least_paired_low": min(run.low for run in runs),
        "most_faints_per_10k": max(run.faints for run in runs),
        "most_seconds": max(run.seconds for run in runs),
        "most_cpu_seconds": max(run.cpu_seconds for run in runs),
    }
    print(f"  worst    lower end {result['least_paired_low']:.1f} (asked: over 0), ", end="")
    print(f"{result['most_seconds']:.0f} s (asked: {MOST_SECONDS} on 2 idle cores)", flush=True)
    return result


def _run(config: RunConfig, params: dict[str, object], expert: EvaluationDTO) -> Run:
    """Train, evaluate sampled actions on the held-out towns, print."""
    with tempfile.TemporaryDirectory(prefix="townlet-scratch-") as folder:
        cpu = time.process_time()
        result = run_strategy(
            "ppo", params | {"evaluation_episodes": 0}, config=config, run_dir=Path(folder) / "run"
        )
        cpu_seconds = time.process_time() - cpu
        assert isinstance(result, PPOTrainingResultDTO)
        trained = evaluate_as_configured(config, checkpoint=Path(str(result.checkpoint)))
    returns = (np.array(each.episode_returns) for each in (trained, expert))
    difference = paired_difference(*returns, stream(0, "bootstrap"))
    run = Run(
        difference.mean,
        difference.interval.low,
        10 * trained.events["faint"],
        result.collect_sec + result.update_sec,
        cpu_seconds,
    )
    print(
        f"  seed {config.seed:<3d} return {trained.mean:6.1f}  faints {run.faints:5.2f}  less the expert's "
        f"{run.difference:+.1f} [{run.low:+.1f}, {difference.interval.high:+.1f}], better in "
        f"{100 * difference.share_better:.0f} % of towns; {result.steps / 1e6:.1f} M agent-ticks in "
        f"{run.seconds:.0f} s, {run.cpu_seconds:.0f} CPU seconds, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return run


if __name__ == "__main__":
    main(sys.argv[1:])
