"""Runs of PPO that take a moment, resumed, and compared by what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from townlet_train.config import RunConfig
from townlet_train.files import sha256_of
from townlet_train.orchestrator import run_strategy
from townlet_train.results import TrainingResultDTO

SHORT = {"timesteps": 700, "n_steps": 300, "batch_size": 50, "n_epochs": 2, "checkpoint_interval": 100}
SHORT |= {"evaluation_episodes": 2, "log_interval": 100}
NORMALISED = {"normalize_observations": True, "normalize_rewards": True, "learning_rate_schedule": "linear"}
TIMES = {
    "samples_per_sec",
    "timestamp",
    "start_time",
    "end_time",
    "training_time_seconds",
    "duration_sec",
    "started_at",
}
TIMES |= {"steps_per_sec", "collect_sec", "update_sec", "epoch_duration_sec"}
PLACES = {"model_path", "checkpoint", "policy"}


def train(run_dir: Path, *, env: str = "CartPole-v1", seed: int = 3, **params: Any) -> TrainingResultDTO:
    config = RunConfig.model_validate({"env": env, "seed": seed})
    return run_strategy("ppo", {**SHORT, **params}, config=config, run_dir=run_dir)


def resume(
    checkpoint: Path | str,
    run_dir: Path | None = None,
    *,
    fork: bool = False,
    overwrite: bool = False,
    **params: Any,
) -> TrainingResultDTO:
    return run_strategy(
        "ppo",
        params,
        config=RunConfig(),
        run_dir=run_dir,
        resume_from=checkpoint,
        fork=fork,
        overwrite=overwrite,
    )


def without(names: set[str], document: Any) -> Any:
    """A JSON document less some keys, wherever they are."""
    if isinstance(document, dict):
        return {key: without(names, value) for key, value in document.items() if key not in names}
    return [without(names, value) for value in document] if isinstance(document, list) else document


def left_by(run_dir: Path, *, after: int = 0) -> dict[str, Any]:
    """What a run leaves that must not depend on whether it was interrupted: files' bytes, documents less times."""
    found: dict[str, Any] = {
        path.name: sha256_of(path)
        for path in run_dir.glob("*.zip")
        if not path.stem.startswith("checkpoint_") or int(path.stem.removeprefix("checkpoint_")) > after
    }
    for path in (*run_dir.glob("*_results.json"), *run_dir.glob("*_metrics.json")):
        found[path.name] = without(TIMES | PLACES | {"checkpoints"}, json.loads(path.read_text()))
    for path in (run_dir / "metrics.jsonl", *run_dir.glob("*_log.jsonl")):
        found[path.name] = [without(TIMES, json.loads(line)) for line in path.read_text().splitlines()]
    return found


STORY = {
    f"TOWNLET_TRAIN__{key}": value
    for key, value in {
        "ROLLOUT__TOWNS": "8",
        "ROLLOUT__TICKS": "160",
        "EVALUATION__EPISODES": "4",
        "BC__N_EPOCHS": "2",
        "BC__EVALUATE": "false",
        "ANNEAL__TIMESTEPS": "4096",
        "ANNEAL__N_CYCLES": "1",
        "ANNEAL__BC_THRESHOLD": "0",
        "ANNEAL__STAGE_EPISODES": "2",
        "ANNEAL__EVALUATION_EPISODES": "0",
        "GATE__EPISODES": "20",
        "GATE__RESAMPLES": "200",
        "GATE__MARGIN": "100",
        "GATE__TAIL_MARGIN": "100",
        "GATE__GUARDRAILS": "[]",
    }.items()
}
"""Settings by which the demo goes through all its steps in seconds: its gates let everything pass."""
