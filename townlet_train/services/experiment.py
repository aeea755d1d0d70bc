"""What a finished run leaves for other programs: results and time series as JSON, as pipelines expect them, and a CSV.

Names are those of Stable-Baselines3. What a method does not define is null, never a made-up number.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from townlet_train.data.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, sorted_checkpoints
from townlet_train.files import to_json, write_bytes, write_json
from townlet_train.results import TrainingResultDTO
from townlet_train.services.clock import now, stamp
from townlet_train.services.runs import Run

logger = logging.getLogger(__name__)
Line = Mapping[str, Any]
HYPERPARAMETERS = ("learning_rate", "n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda")
MEASURED = ("final_reward_mean", "final_reward_std", "episode_length_mean", "total_episodes", "converged")
SERIES = ("timestep", "episode", "reward", "episode_length", "loss", "timestamp")
POLICIES = {"mlp": "MlpPolicy", "conflict_aware": "ConflictAwarePolicyNetwork"}


def close_experiment(run: Run, result: TrainingResultDTO) -> TrainingResultDTO:
    """Leave what a finished run owes: the model file, both documents, the lineage in run.json.

    Returns the result with the checkpoint it names replaced by the model file, a copy of it.
    """
    info: CheckpointInfo | None = None
    lines = run.lines()
    if result.checkpoint is not None:
        run.publish_model(Path(result.checkpoint))
        result = result.model_copy(update={"checkpoint": str(run.model_path)})
        checkpoint = load_checkpoint(run.model_path)
        info = checkpoint.info
        run.update(lineage=info.lineage.model_dump(mode="json"), chosen=chosen(checkpoint, result, lines))
    results = results_document(run, result, info, lines)
    write_bytes(run.path / f"{run.id}_metrics.json", metrics_json(run, lines).encode())
    write_bytes(run.path / "logs" / f"metrics_{stamp()}.csv", metrics_table(lines).encode())
    write_json(run.path / f"{run.id}_results.json", results)
    reached = results["experiment_results"]["metrics"].items()
    summary = ", ".join(f"{name} {_shown(value)}" for name, value in reached if value is not None)
    logger.info("%s is finished: %s", run.id, summary)
    return result


def chosen(checkpoint: Checkpoint, result: TrainingResultDTO, lines: Sequence[Line]) -> dict[str, Any]:
    """What params leave open, as it was in the end; null where a method has no such thing or does not tell."""
    placed = {
        name: checkpoint.state.get(name, getattr(result, name, None)) for name in ("device", "precision")
    }
    return {
        "network": dict(checkpoint.info.network),
        **placed,
        "checkpoint_interval": getattr(result, "checkpoint_interval", None),
        "recording_interval": recording_interval(lines),
    }


def results_document(
    run: Run, result: TrainingResultDTO, info: CheckpointInfo | None, lines: Sequence[Line]
) -> dict[str, Any]:
    """What the run reached; `info` describes its checkpoint, when it left one, `lines` is what it recorded."""
    reached, params = result.model_dump(mode="json"), run["params"]
    algorithm = run["strategy"].upper()
    environment = run["config"]["env"]
    document = {
        "metadata": {
            "experiment_id": run.id,
            "algorithm": algorithm,
            "environment": environment,
            "seed": run["seed"],
            "start_time": run["started_at"],
            "end_time": now(),
            "total_timesteps": total_timesteps(lines, reached.get("steps")),
            "conda_environment": os.environ.get("CONDA_DEFAULT_ENV"),
        },
        "model": {
            "algorithm": algorithm,
            "policy": POLICIES.get(info.network.get("kind", "")) if info else None,
            "model_file": run.model_path.name if info else None,
            "model_path": f"{run.path}/",
            "checkpoint_interval": reached.get("checkpoint_interval"),
            "checkpoints": [path.name for path in sorted_checkpoints(run.path)],
        },
        "metrics": {
            **{name: reached.get(name) for name in MEASURED},
            "training_time_seconds": result.duration_sec,
        },
        "hyperparameters": {name: params.get(name) for name in HYPERPARAMETERS} | dict(params),
        "environment": {
            "name": environment,
            "observation_space": f"Box({len(info.feature_names)},)" if info else None,
            "action_space": action_space(info) if info else None,
            "reward_threshold": reached.get("reward_threshold"),
        },
        "result": reached,
        "warnings": list(result.warnings),
    }
    return {"experiment_results": document}


def action_space(info: CheckpointInfo) -> str:
    """Indices or vectors, in Gymnasium's words."""
    n_actions = info.network.get("n_actions")
    vectors = info.network.get("distribution") == "gaussian"
    return f"Box({n_actions},)" if vectors else f"Discrete({len(info.action_names)})"


def metrics_json(run: Run, lines: Sequence[Line]) -> str:
    """The run's time series from the lines it recorded, each point on a line of its own."""
    rewards = [line["reward"] for line in lines if line.get("reward") is not None]
    lengths = [line["episode_length"] for line in lines if line.get("episode_length") is not None]
    document = {
        "metadata": {
            "experiment_id": run.id,
            "algorithm": run["strategy"].upper(),
            "environment": run["config"]["env"],
            "seed": run["seed"],
            "recording_interval": recording_interval(lines),
        },
        "time_series": [],
        "aggregated": {
            "reward_mean": float(np.mean(rewards)) if rewards else None,
            "reward_std": float(np.std(rewards)) if rewards else None,
            "reward_min": min(rewards, default=None),
            "reward_max": max(rewards, default=None),
            "episode_length_mean": float(np.mean(lengths)) if lengths else None,
            "total_timesteps": total_timesteps(lines),
        },
    }
    points = ",".join(f"\n      {to_json(point(line))}" for line in lines)
    frame = to_json({"training_metrics": document}, indent=2) + "\n"
    return frame.replace('"time_series": []', f'"time_series": [{points}\n    ]', 1)


def point(line: Line) -> dict[str, Any]:
    """A line of the time series: every name that pipelines expect, and whatever else was recorded."""
    return {name: line.get(name) for name in SERIES} | dict(line)


def metrics_table(lines: Sequence[Line]) -> str:
    """The time series as CSV, a column for every name that any line has; null is an empty cell, a list is JSON."""
    names = list(dict.fromkeys((*SERIES, *(name for line in lines for name in line))))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    for line in lines:
        table.writerow([_cell(line.get(name)) for name in names])
    return text.getvalue()


def total_timesteps(lines: Sequence[Line], steps: float | None = None) -> int | None:
    """The steps of the whole run, or else the largest timestep recorded."""
    if steps is not None:
        return int(steps)
    return max((line["timestep"] for line in lines if line.get("timestep") is not None), default=None)


def recording_interval(lines: Sequence[Line]) -> int | None:
    """Timesteps from line to line, when they are always the same."""
    steps = [0, *(line["timestep"] for line in lines if line.get("timestep") is not None)]
    distances = {later - earlier for earlier, later in pairwise(steps)}
    return distances.pop() if len(distances) == 1 else None


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> Any:
    return to_json(value) if isinstance(value, list | dict) else value
