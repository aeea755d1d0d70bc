"""DAgger beside behaviour cloning, the same number of the expert's labels for both, and about as many updates.

The return is that of held-out episodes, sampled. Accuracy is the share of labels that the policy names, its most
probable action against what the expert does there: in the states that the expert leads to, and in those that the
policy itself gets into, which is where it has to do without. TOWNLET_BENCH_SEEDS sets the number of seeds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.envs.build import build_env
from townlet_train.orchestrator import TrainingOrchestrator
from townlet_train.policies.experts import EXPERTS, build_expert
from townlet_train.policies.network import NetworkPolicy
from townlet_train.services.evaluation import evaluate_as_configured

N_SEEDS = int(os.environ.get("TOWNLET_BENCH_SEEDS", "3"))
N_ITERATIONS, N_EPOCHS, EPISODES = 10, 4, 100
N_PASSES = N_EPOCHS * (N_ITERATIONS + 1) // 2  # over all labels, as DAgger's growing aggregate adds up to
ACCURACY_SEED, ACCURACY_TICKS = 40_000_000, 1000


class Task(NamedTuple):
    """Where, how many environments, and with how many labels."""

    env: str
    n_envs: int
    n_agents: int
    learning_rate: float
    budgets: tuple[int, ...]


TASKS = (
    Task("LunarLander-v3", 8, 1, 1e-2, (5_000, 20_000)),
    Task("town", 4, 6, 2e-3, (15_360, 61_440)),
)


class Reached(NamedTuple):
    """What a policy is worth."""

    earned: float  # mean return of held-out episodes
    in_experts: float  # accuracy in the expert's states
    in_own: float  # accuracy in its own


def main() -> dict[str, float]:
    """Print a line for each task, budget and method: medians and ranges over seeds."""
    found: dict[str, float] = {}
    for task in TASKS:
        expert = evaluate_as_configured(_config(task, 0), scripted="expert")
        print(
            f"dagger: {task.env}, {N_SEEDS} seeds, {EPISODES} held-out episodes; the expert earns {expert.mean:.1f}"
        )
        for labels in task.budgets:
            for name, train in (("bc", _clone), ("dagger", _correct)):
                runs = [_reached(task, seed, labels, train) for seed in range(1, N_SEEDS + 1)]
                print(
                    f"  {labels:6} labels  {name:6}  return {_spread([run.earned for run in runs], '6.1f')}   "
                    f"accuracy in the expert's states {_spread([run.in_experts for run in runs], '.3f')}, "
                    f"in its own {_spread([run.in_own for run in runs], '.3f')}",
                    flush=True,
                )
                found[f"{task.env}_{labels}_{name}"] = statistics.median(run.earned for run in runs)
    return found


def _spread(values: list[float], form: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def _config(task: Task, seed: int) -> RunConfig:
    return RunConfig.model_validate({"env": task.env, "seed": seed, "evaluation": {"episodes": EPISODES}})


def _reached(task: Task, seed: int, labels: int, train: Any) -> Reached:
    config = _config(task, 1000 * seed)
    with tempfile.TemporaryDirectory() as folder:
        model = train(TrainingOrchestrator(config), task, labels, Path(folder))
        policy = NetworkPolicy(load_checkpoint(model))
        earned = evaluate_as_configured(config, checkpoint=model).mean
        greedy = NetworkPolicy(load_checkpoint(model), deterministic=True)
    return Reached(earned, _accuracy(task, greedy, None), _accuracy(task, greedy, policy))


def _clone(orchestrator: TrainingOrchestrator, task: Task, labels: int, folder: Path) -> Path:
    """A clone of an expert captured for that many agent-ticks."""
    ticks = labels // (task.n_envs * task.n_agents)
    rollout = {"towns": task.n_envs, "ticks": ticks, "store": "memmap"}
    config = orchestrator.config.model_copy(
        update={"rollout": orchestrator.config.rollout.model_copy(update=rollout)}
    )
    capturing = TrainingOrchestrator(config)
    capturing.capture_rollout(folder / "demonstrations", with_maps=False)
    params = {"manifest": folder / "demonstrations", "n_epochs": N_PASSES, "patience": N_PASSES}
    params |= {"learning_rate": task.learning_rate, "evaluate": False}
    return Path(str(orchestrator.run("bc", params, run_dir=folder / "run").checkpoint))


def _correct(orchestrator: TrainingOrchestrator, task: Task, labels: int, folder: Path) -> Path:
    """DAgger from nothing with that many labels."""
    params = {"timesteps": labels, "n_iterations": N_ITERATIONS, "n_envs": task.n_envs, "n_epochs": N_EPOCHS}
    params |= {"learning_rate": task.learning_rate, "evaluation_episodes": 0}
    return Path(str(orchestrator.run("dagger", params, run_dir=folder / "run").checkpoint))


def _accuracy(task: Task, greedy: NetworkPolicy, driver: NetworkPolicy | None) -> float:
    """Share of agent-ticks in which `greedy` does as the expert, where `driver` leads, or the expert itself."""
    rng = np.random.default_rng(ACCURACY_SEED)
    named = total = 0
    with closing(build_env(_config(task, 0), task.n_envs)) as env:
        expert = build_expert(env.spec, EXPERTS)
        observation = env.reset(np.arange(ACCURACY_SEED, ACCURACY_SEED + task.n_envs))
        for _ in range(ACCURACY_TICKS):
            draws = rng.random((task.n_envs, task.n_agents))
            labels = expert.act(observation, draws)
            named += int(np.count_nonzero(greedy.act(observation, draws) == labels))
            total += labels.size
            actions = labels if driver is None else driver.act(observation, draws)
            observation = env.step(actions).observation
    return named / total
