"""Runs read back from their directories, whatever state those are in: nothing is written, torch is not needed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townlet_train.data.checkpoint import sorted_checkpoints
from townlet_train.errors import UsageError
from townlet_train.files import to_json
from townlet_train.results import (
    RunDiffDTO,
    RunDifferenceDTO,
    RunFileDTO,
    RunRowDTO,
    RunShowDTO,
    RunsListDTO,
    RunTailDTO,
)
from townlet_train.results.runs import Value
from townlet_train.services.runs import LOCK, METRICS, MODEL, RUN, locked

READ_BACK = 1 << 16  # bytes of a log read at a time, from its end
DAMAGED, KILLED, RUNNING = "damaged", "killed", "running"
UNLIKE = ("duration_sec", "checkpoint", "timestamp", "policy")  # of the moment, or of where a run lies
RATES = ("_sec", "_per_sec", "_seconds")


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

    def part(self, name: str) -> Mapping[str, Any]:
        """An object within run.json; empty where it is null, missing or none."""
        part = self.document.get(name)
        return part if isinstance(part, dict) else {}

    def last_lines(self, n: int) -> list[dict[str, Any]]:
        """Those of the last `n` whole lines of metrics.jsonl that can be read; none where there is no such file."""
        return self._tail(n)[0]

    def damaged_lines(self, n: int) -> int:
        """How many of the last `n` whole lines of metrics.jsonl cannot be read."""
        return self._tail(n)[1]

    def _tail(self, n: int) -> tuple[list[dict[str, Any]], int]:
        path = self.path / METRICS
        lines = [_line(line) for line in (_last_lines(path, n) if path.is_file() else [])]
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


def find_runs(roots: Sequence[Path]) -> Iterator[RecordedRun]:
    """Every run below some directories, by path; a run's own directory is not searched for others.

    Raises:
        UsageError: one of them is no directory.
    """
    for root in roots:
        if not root.is_dir():
            raise UsageError(
                f"{root} is not a directory; expected one that holds runs. Name it: townlet-train runs list DIR"
            )
        for folder, inner, files in os.walk(root):
            inner.sort()
            if RUN in files:
                inner.clear()
                yield read_recorded(Path(folder))
            else:
                inner[:] = [name for name in inner if not name.startswith(".")]


def list_runs(roots: Sequence[Path], *, status: str | None = None, env: str | None = None) -> RunsListDTO:
    """Every run below some directories, those of one status or environment where that is asked for."""
    found = [run for run in find_runs(roots) if status in (None, run.status) and env in (None, run.env)]
    return RunsListDTO(
        roots=tuple(map(str, roots)),
        runs=tuple(map(_row, found)),
        warnings=tuple(sentence for run in found for sentence in run.damage.values()),
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


def diff_runs(first: Path, second: Path) -> RunDiffDTO:
    """In what two runs differ: settings, what they began with, versions, what was reached."""
    runs = [read_recorded(path) for path in (first, second)]
    told = [name for name in ("chosen", "lineage") if all(run.part(name) for run in runs)]
    settings = [
        {name: run.document.get(name) for name in ("strategy", "seed")}
        | flatten(run.part("config"))
        | flatten({"params": run.part("params")})
        | _causes(flatten({name: run.part(name) for name in told}))
        | {"lineage.parent_sha256": _parent(run)}
        for run in runs
    ]
    reached = [
        {
            name: value
            for name, value in flatten(run.reached).items()
            if not _of_the_moment(name) and not str(value).startswith("[")
        }
        for run in runs
    ]
    changed = differences(*settings)
    versions = differences(*(flatten(run.part("versions")) for run in runs))
    return RunDiffDTO(
        first=str(first),
        second=str(second),
        settings=changed,
        versions=versions,
        reached=differences(*reached),
        same_settings=not changed and not versions,
        warnings=tuple(sentence for run in runs for sentence in _doubts(run)),
    )


def _doubts(run: RecordedRun) -> Iterator[str]:
    """Why what a run is compared by may not be all of it."""
    yield from run.damage.values()
    if not run.reached:
        yield f"{run.path} has no whole results document, so what it reached is not known."


def tail_run(path: Path, n: int) -> RunTailDTO:
    """The last `n` lines a run recorded."""
    run = read_recorded(path)
    lines = tuple(flatten(line) for line in run.last_lines(n))
    damaged = run.damaged_lines(n)
    warnings = [sentence for name, sentence in run.damage.items() if name == RUN]
    if damaged:
        warnings.append(
            f"{path / METRICS} has {damaged} damaged lines among its last {n}, which were left out."
        )
    return RunTailDTO(run=str(path), status=run.status, lines=lines, warnings=tuple(warnings))


def follow_run(path: Path, n: int, wait: Callable[[], None] = lambda: time.sleep(0.5)) -> Iterator[str]:
    """The last `n` lines a run recorded, then each as it is recorded, until the run is no longer at work.

    `wait` is called where there is nothing new.
    """
    log = path / METRICS
    read_recorded(path)
    recorded, offset = _new_lines(log, 0)
    yield from recorded[-n:]
    while True:
        going = read_recorded(path).status == RUNNING
        lines, offset = _new_lines(log, offset)
        yield from lines
        if not going:
            return
        if not lines:
            wait()


def differences(first: Mapping[str, Value], second: Mapping[str, Value]) -> tuple[RunDifferenceDTO, ...]:
    """Every name whose values differ, or that only one has, in the order of first sight."""
    absent = object()
    return tuple(
        RunDifferenceDTO(name=name, first=first.get(name), second=second.get(name))
        for name in dict.fromkeys((*first, *second))
        if first.get(name, absent) != second.get(name, absent)
    )


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


def _new_lines(path: Path, offset: int) -> tuple[list[str], int]:
    """The whole lines of a log beyond `offset` bytes, and where they end; from its start where it became shorter."""
    if not path.is_file():
        return [], offset
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(offset if size >= offset else 0)
        begin = stream.tell()
        content = stream.read()
    whole, _, _ = content.rpartition(b"\n")
    lines = whole.decode("utf-8", "replace").split("\n") if whole else []
    return lines, begin + (len(whole) + 1 if whole else 0)


def _identity(run: RecordedRun) -> dict[str, Any]:
    lines = run.last_lines(1)
    return {
        "strategy": run.document.get("strategy"),
        "env": run.env,
        "seed": run.document.get("seed"),
        "status": run.status,
        "started_at": run.document.get("started_at"),
        "steps": lines[0].get("timestep") if lines else None,
        "return_mean": run.return_mean,
    }


def _row(run: RecordedRun) -> RunRowDTO:
    return RunRowDTO(
        run=str(run.path),
        **_identity(run),
        checkpoints=len(sorted_checkpoints(run.path)),
        bytes=sum(file.stat().st_size for file in _files(run.path)),
        damaged=", ".join(run.damage) or None,
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


def _causes(told: Mapping[str, Value]) -> dict[str, Value]:
    """Of what runs tell at their end, what made them what they are: choices left open, hashes of what they read."""
    return {
        name: value for name, value in told.items() if name.startswith("chosen.") or name.endswith("_sha256")
    }


def _parent(run: RecordedRun) -> str | None:
    """The hash of the checkpoint a run was forked from; its lineage knows of it even when the run was resumed."""
    start, lineage = run.part("start"), run.part("lineage")
    forked_from = start.get("sha256") if start.get("fork") else None
    return lineage.get("parent_sha256") or forked_from


def _of_the_moment(name: str) -> bool:
    """Whether a value says when, where or how fast, which equal runs need not share."""
    last = name.rpartition(".")[2]
    return last in UNLIKE or last.endswith(RATES) or "warnings" in name


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


def _last_lines(path: Path, n: int) -> list[bytes]:
    """The last `n` whole lines of a file, read from its end."""
    with path.open("rb") as stream:
        start, content = stream.seek(0, os.SEEK_END), b""
        while start > 0 and content.count(b"\n") <= n:
            step = min(READ_BACK, start)
            start -= step
            stream.seek(start)
            content = stream.read(step) + content
    return content.split(b"\n")[:-1][-n:]
