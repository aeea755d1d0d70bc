"""A run directory as a run of MLflow: begun or gone on with, sent line by line from a thread, and ended."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from townlet_train.api import TrainingResultDTO

NOTE = Path("logs/mlflow/run.json")  # which run of MLflow a run directory is
EXPERIMENT = "townlet-train"
MOST_METRICS, MOST_PARAMS, LONGEST_VALUE = 1000, 100, 6000  # that MLflow takes at once


class MlflowLogger:
    """Sends every line of a run to MLflow, what its metrics.jsonl already has included."""

    def __init__(self, run_dir: Path) -> None:
        self._client = MlflowClient()
        self._run_id = _known_run(self._client, run_dir) or _new_run(self._client, run_dir)
        self._sent = _last_steps(self._client, self._run_id)
        self._lines: SimpleQueue[list[Metric] | None] = SimpleQueue()
        self._n_lines, self._status = 0, "FAILED"
        self._error: Exception | None = None
        self._thread = Thread(target=self._send, name="townlet-train-mlflow", daemon=True)
        self._thread.start()
        metrics = run_dir / "metrics.jsonl"
        if metrics.exists():
            with metrics.open("rb") as lines:  # bytes, since text has more ends of lines than a log
                for line in lines:
                    self.record(json.loads(line))

    def record(self, line: Mapping[str, Any]) -> None:
        """Queue the numbers of a line that MLflow does not have; its step is its timestep, or else its number."""
        self._tell()
        self._n_lines += 1
        step = line.get("timestep", self._n_lines)
        moment = int(1000 * datetime.fromisoformat(line["timestamp"]).timestamp())
        self._lines.put(
            [
                Metric(name, value, moment, step)
                for name, value in numbers(line)
                if step > self._sent.get(name, -1)
            ]
        )

    def finish(self, result: TrainingResultDTO) -> None:
        """The run ended well: leave its result and its model with it."""
        self._status = "FINISHED"
        self._client.log_dict(self._run_id, result.model_dump(mode="json"), "result.json")
        if result.checkpoint is not None:
            self._client.log_artifact(self._run_id, result.checkpoint)

    def close(self) -> None:
        """Wait until everything is sent, and end the run."""
        self._lines.put(None)
        self._thread.join()
        self._client.set_terminated(self._run_id, self._status)
        self._tell()

    def _tell(self) -> None:
        """Raise what went wrong in the thread, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _send(self) -> None:
        """Send what is queued, as much at once as MLflow takes, until None comes or something goes wrong."""
        try:
            ended = False
            while not ended:
                waiting = [self._lines.get()]
                while not self._lines.empty():
                    waiting.append(self._lines.get())
                ended = None in waiting
                metrics = [metric for line in waiting if line is not None for metric in line]
                for start in range(0, len(metrics), MOST_METRICS):
                    self._client.log_batch(self._run_id, metrics=metrics[start : start + MOST_METRICS])
        except Exception as error:  # told by whoever records or closes next
            self._error = error


def numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of a line but its step, by name."""
    for name, value in line.items():
        if isinstance(value, int | float) and name != "timestep" and math.isfinite(value):
            yield name, float(value)


def _known_run(client: MlflowClient, run_dir: Path) -> str | None:
    """The run of MLflow that the directory went on as before, set going again; None where MLflow has none."""
    try:
        known: str = json.loads((run_dir / NOTE).read_text(encoding="utf-8"))["run_id"]
        client.update_run(known, status="RUNNING")
    except (OSError, ValueError, KeyError, MlflowException):
        return None
    return known


def _new_run(client: MlflowClient, run_dir: Path) -> str:
    """A run of MLflow with what run.json says of the run, noted in its directory."""
    described = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    tags = {
        "strategy": described["strategy"],
        "config_hash": described["config_hash"],
        "run_dir": str(run_dir.absolute()),
    }
    run = client.create_run(_experiment(client), tags=tags, run_name=run_dir.name)
    told = {**described["config"], described["strategy"]: described["params"]}
    params = [Param(key, value[:LONGEST_VALUE]) for key, value in flat(told)]
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(run.info.run_id, params=params[start : start + MOST_PARAMS])
    _note(run_dir / NOTE, run.info.run_id)
    return str(run.info.run_id)


def _note(path: Path, run_id: str) -> None:
    """Write down which run it is, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump({"run_id": run_id}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def _experiment(client: MlflowClient) -> str:
    """The id of the experiment that runs go to, made where there is none."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another run has just made it
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _last_steps(client: MlflowClient, run_id: str) -> dict[str, int]:
    """The last step that MLflow has of every metric."""
    names = client.get_run(run_id).data.metrics
    return {name: max(point.step for point in client.get_metric_history(run_id, name)) for name in names}


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and text of every value that is not a mapping.

    >>> dict(flat({"env": "town", "gate": {"alpha": 0.05, "guardrails": []}}))
    {'env': 'town', 'gate.alpha': '0.05', 'gate.guardrails': '[]'}
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value)
