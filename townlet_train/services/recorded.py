"""Runs read back from their directories, whatever state those are in: nothing is written, torch is not needed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townlet_train.data.checkpoint import sorted_checkpoints, step_of
from townlet_train.errors import UsageError
from townlet_train.files import to_json
from townlet_train.results import (
    RunFileDTO,
    RunRowDTO,
    RunShowDTO,
    RunsListDTO,
)
from townlet_train.results.runs import Value
from townlet_train.services.run_files import METRICS, RUN
from townlet_train.services.runs import LOCK, MODEL, locked

READ_BACK = 1 << 16  # bytes of a log read at a time, from its end
DAMAGED, FINISHED, KILLED, RUNNING = "damaged", "finished", "killed", "running"


@dataclass(frozen=True)
class RecordedRun:
    """What a run wrote down, as far as it did."""

    path: Path
    document: Mapping[str, Any]  # run.json; empty where it is lost or damaged
    status: str

    @property
    def results(self) -> Mapping[str, Any]:
        """The results document; empty where the run did not finish, or it is damaged."""
        found = self._results_files
        return _results_of(found[0]) if len(found) == 1 else {}

    @property
    def _results_files(self) -> list[Path]:
        return sorted(self.path.glob("*_results.json"))

    @property
    def damage(self) -> Mapping[str, str]:
        """What cannot be read of it: a sentence for each file, by name. Of the log, its last line is looked at."""
        found = {}
        if self.status == DAMAGED:
            found[RUN] = f"{self.path / RUN} is damaged; expected a JSON object with a status."
        for path in self._results_files:
            if not _results_of(path):
                found[path.name] = f"{path} is damaged; expected a JSON object with `experiment_results`."
        if self.damaged_lines(1):
            found[METRICS] = (
                f"{self.path / METRICS} is damaged; its last line is no JSON object with a timestep."
            )
        return found

    @property
    def reached(self) -> Mapping[str, Any]:
        """The result that the strategy returned; empty where there is none."""
        result = self.results.get("result")
        return result if isinstance(result, dict) else {}

    @property
    def env(self) -> str | None:
        """The environment's id."""
        config = self.document.get("config")
        return config.get("env") if isinstance(config, dict) else None

    @property
    def model(self) -> Path | None:
        """The checkpoint to use, where it is there and is the only one."""
        found = self.models
        return found[0] if len(found) == 1 else None

    @property
    def models(self) -> tuple[Path, ...]:
        """Every file named as the checkpoint to use; a run writes one."""
        return tuple(sorted(self.path.glob(f"*{MODEL}")))

    @property
    def return_mean(self) -> float | None:
        """Mean return on held-out seeds where it was evaluated, else of the last training episodes."""
        evaluation = self.reached.get("evaluation")
        held_out = _number(evaluation.get("mean")) if isinstance(evaluation, dict) else None
        return held_out if held_out is not None else _number(self.reached.get("final_reward_mean"))

    @property
    def steps(self) -> int | None:
        """How far it came: as its result says where it is finished, else by its last line or its newest checkpoint."""
        told = self.results.get("metadata") if self.status == FINISHED else None
        in_all = told.get("total_timesteps") if isinstance(told, dict) else None
        if isinstance(in_all, int):
            return in_all
        lines, checkpoints = self.last_lines(1), sorted_checkpoints(self.path)[-1:]
        return max([*(line["timestep"] for line in lines), *map(step_of, checkpoints)], default=None)

    def part(self, name: str) -> Mapping[str, Any]:
        """An object within run.json; empty where it is null, missing or none."""
        part = self.document.get(name)
        return part if isinstance(part, dict) else {}

    def last_lines(self, n: int) -> list[dict[str, Any]]:
        """Those of the last `n` lines of metrics.jsonl that can be read; none where there is no such file."""
        return self._tail(n)[0]

    def damaged_lines(self, n: int) -> int:
        """How many of the last `n` lines of metrics.jsonl cannot be read; half a line is one where the run finished."""
        return self._tail(n)[1]

    def _tail(self, n: int) -> tuple[list[dict[str, Any]], int]:
        path = self.path / METRICS
        whole = self.status != FINISHED  # a kill in mid-line leaves half of one, which is no damage
        lines = [_line(line) for line in last_lines(path, n, whole=whole)[0]]
        readable = [line for line in lines if line is not None]
        return readable, len(lines) - len(readable)


def read_recorded(path: Path) -> RecordedRun:
    """The run in a directory.

    Raises:
        UsageError: there is none.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}; expected the directory of a run. See: townlet-train runs list")
    if not (path / RUN).is_file():
        raise UsageError(
            f"{path} holds no {RUN}; expected the directory of a run. See: townlet-train runs list"
        )
    document = _object(path / RUN)
    status = document.get("status")
    if not isinstance(status, str) or not _says_who(document):
        return RecordedRun(path, {}, DAMAGED)
    return RecordedRun(path, document, KILLED if status == RUNNING and not _at_work(path) else status)


def find_runs(roots: Sequence[Path], warn: Callable[[str], None]) -> Iterator[RecordedRun]:
    """Every run below some directories, by path; a run's own directory is not searched for others.

    `warn` hears of every folder that cannot be read, and is therefore left out.

    Raises:
        UsageError: one of them is no directory.
    """

    def left_out(error: OSError) -> None:
        warn(f"{error.filename} cannot be read, and runs in it were left out: {error.strerror}.")

    for root in roots:
        if not root.is_dir():
            raise UsageError(
                f"{root} is not a directory; expected one that holds runs. Name it: townlet-train runs list DIR"
            )
        for folder, inner, files in os.walk(root, onerror=left_out):
            inner.sort()
            if RUN in files:
                inner.clear()
                yield read_recorded(Path(folder))
            else:
                inner[:] = [name for name in inner if not name.startswith(".")]


def list_runs(roots: Sequence[Path], *, status: str | None = None, env: str | None = None) -> RunsListDTO:
    """Every run below some directories, those of one status or environment where that is asked for."""
    left_out: list[str] = []
    runs = find_runs(roots, left_out.append)
    found = [run for run in runs if status in (None, run.status) and env in (None, run.env)]
    damages = [run.damage for run in found]
    return RunsListDTO(
        roots=tuple(map(str, roots)),
        runs=tuple(_row(run, damage) for run, damage in zip(found, damages, strict=True)),
        warnings=(*left_out, *(sentence for damage in damages for sentence in damage.values())),
    )


def show_run(path: Path) -> RunShowDTO:
    """Everything a run wrote down about itself."""
    run = read_recorded(path)
    error = run.part("error")
    last = run.last_lines(1)
    return RunShowDTO(
        run=str(path),
        **_identity(run),
        id=run.document.get("id"),
        pid=run.document.get("pid"),
        ended_at=run.document.get("ended_at"),
        error=f"{error.get('type')}: {error.get('message')}" if error else None,
        config_hash=run.document.get("config_hash"),
        model=None if run.model is None else run.model.name,
        versions={name: str(version) for name, version in run.part("versions").items()},
        settings=chosen_settings(run),
        params=flatten(run.part("params")),
        chosen=flatten(run.part("chosen")),
        lineage=flatten(run.part("lineage")),
        resumed=tuple(
            f"{each.get('at')} at step {each.get('timestep')}" for each in run.document.get("resumed", ())
        ),
        last=flatten(last[0]) if last else {},
        files=tuple(
            RunFileDTO(file=str(file.relative_to(path)), bytes=file.stat().st_size) for file in _files(path)
        ),
        warnings=tuple(run.damage.values()),
    )


def chosen_settings(run: RecordedRun) -> dict[str, Value]:
    """The settings that a layer above the defaults decided, by dotted name; params under their strategy's."""
    params = {str(run.document.get("strategy")): run.part("params")}
    settings = flatten(run.part("config")) | flatten(params)
    return {name: settings[name] for name in run.part("origin") if name in settings}


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """A document by dotted names; objects in a list by their number, any other list as JSON.

    >>> flatten({"town": {"n_agents": 6}, "sizes": [64, 64], "start": None, "stages": [{"mode": "bc"}]})
    {'town.n_agents': 6, 'sizes': '[64, 64]', 'start': None, 'stages.0.mode': 'bc'}
    """
    flat: dict[str, Value] = {}
    for name, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(index): item for index, item in enumerate(value)}, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = to_json(value) if isinstance(value, list) else value
    return flat


def _identity(run: RecordedRun) -> dict[str, Any]:
    return {
        "strategy": run.document.get("strategy"),
        "env": run.env,
        "seed": run.document.get("seed"),
        "status": run.status,
        "started_at": run.document.get("started_at"),
        "steps": run.steps,
        "return_mean": run.return_mean,
    }


def _row(run: RecordedRun, damage: Mapping[str, str]) -> RunRowDTO:
    return RunRowDTO(
        run=str(run.path),
        **_identity(run),
        checkpoints=len(sorted_checkpoints(run.path)),
        bytes=sum(file.stat().st_size for file in _files(run.path)),
        damaged=", ".join(damage) or None,
    )


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != LOCK)


def _at_work(path: Path) -> bool:
    """Whether a process holds the lock of a run directory; where nobody may ask, it is believed."""
    if not (path / LOCK).exists():
        return False
    try:
        with locked(path, patience=0):
            return False
    except (UsageError, OSError):
        return True


def _says_who(document: Mapping[str, Any]) -> bool:
    """Whether what a run.json says of the run as a whole is of the kinds that a run writes."""
    texts = ("strategy", "id", "started_at", "ended_at", "config_hash")
    resumed = document.get("resumed", [])
    return (
        all(isinstance(document.get(name), str | None) for name in texts)
        and all(isinstance(document.get(name), int | None) for name in ("seed", "pid"))
        and isinstance(resumed, list)
        and all(isinstance(each, dict) for each in resumed)
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _line(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None where it is damaged."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("timestep"), int) else None


def _results_of(path: Path) -> dict[str, Any]:
    """What a results document says; empty where it is damaged."""
    found = _object(path).get("experiment_results")
    return found if isinstance(found, dict) else {}


def _object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file holds none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def last_lines(path: Path, n: int, *, whole: bool = True) -> tuple[list[bytes], int]:
    """The last `n` lines of a file, read from its end, and where they end; none where there is no such file.

    What follows its last line break is no line, unless it need not be `whole`.
    """
    if not path.is_file():
        return [], 0
    with path.open("rb") as stream:
        start = end = stream.seek(0, os.SEEK_END)
        content = b""
        while start > 0 and content.count(b"\n") <= n:
            step = min(READ_BACK, start)
            start -= step
            stream.seek(start)
            content = stream.read(step) + content
    *lines, torn = content.split(b"\n")
    if torn and not whole:
        return [*lines, torn][-n:], end
    return lines[-n:], end - len(torn)
