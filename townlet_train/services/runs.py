"""One run, one directory: who may write to it, what is in it, and what became of it.

    run.json                 resolved config, params, versions, seeds, lineage, status
    metrics.jsonl            one line per report, appended and flushed; the truth the others derive from
    checkpoint_<step>.zip    as training went on
    {id}_model.zip           the checkpoint to use
    {id}_results.json        what was reached            {id}_metrics.json    the time series
    logs/training_<ts>.log   everything that was logged

A lock is held while the run lasts, so two runs never write to one directory.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from townlet_train.errors import Interrupted, UsageError
from townlet_train.files import atomic_path, to_json, write_json

RUN_SCHEMA = "1.0.0"
LOCK, PREVIOUS, RUN, METRICS = ".lock", ".previous", "run.json", "metrics.jsonl"
WRITTEN = (
    RUN,
    METRICS,
    "checkpoint_*.zip",
    "*_model.zip",
    "*_results.json",
    "*_metrics.json",
    "logs/training_*.log",
)
EXPERIMENTS = Path("results/experiments")
RECORDED_VERSIONS = ("townlet-train", "numpy", "torch", "safetensors", "gymnasium", "numba")


class Run:
    """A run directory that is open for writing; `open_run` makes one."""

    def __init__(self, path: Path, run_id: str, document: Mapping[str, Any]) -> None:
        self.path = path
        self.id = run_id
        self._document = dict(document)

    @property
    def model_path(self) -> Path:
        """Where the checkpoint to use belongs."""
        return self.path / f"{self.id}_model.zip"

    def record(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, stamped with the time, and flush it."""
        with (self.path / METRICS).open("a", encoding="utf-8") as stream:
            stream.write(to_json({**line, "timestamp": now()}) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """Every line recorded so far."""
        path = self.path / METRICS
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def publish_model(self, checkpoint: Path) -> None:
        """Copy a checkpoint of this run to `model_path`."""
        if checkpoint != self.model_path:
            with atomic_path(self.model_path) as partial:
                shutil.copyfile(checkpoint, partial)

    def update(self, **fields: Any) -> None:
        """Rewrite run.json with `fields` added or changed."""
        self._document |= fields
        write_json(self.path / RUN, self._document)

    def __getitem__(self, field: str) -> Any:
        return self._document[field]


def default_run_dir(strategy: str, seed: int) -> Path:
    """Where a run goes when nobody says."""
    return EXPERIMENTS / f"{strategy}_seed{seed}"


def check_run_dir(path: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` when a run may not start in `path`; changes nothing.

    A run that failed before it saved any checkpoint is in nobody's way.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"The run directory {path} is a file. Choose another --output-dir.")
    if not path.exists() or all(entry.name == LOCK for entry in path.iterdir()):
        return
    if not (path / RUN).exists():
        raise UsageError(f"{path} is not empty and holds no run. Choose another --output-dir.")
    status = _status(path / RUN)
    nothing_to_lose = status == "failed" and not any(path.glob("*.zip"))
    if not overwrite and not nothing_to_lose:
        how = "running, or killed while it was" if status == "running" else status
        raise UsageError(
            f"{path} already holds a run ({how}). Pass --overwrite to replace it or choose another --output-dir."
        )


def _status(path: Path) -> str:
    """What a run.json says became of its run."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UsageError(
            f"{path} is damaged, expected a JSON object with a status. Choose another --output-dir."
        ) from error


@contextmanager
def open_run(
    path: Path, *, strategy: str, seed: int, details: Mapping[str, Any], overwrite: bool
) -> Iterator[Run]:
    """A run directory to write to, locked while the block lasts; run.json says how the block ended.

    `details` go into run.json. Raises `UsageError` when another run is at work there, or was and `overwrite` is False.
    The run that is replaced is kept until the new one has saved a checkpoint, and is put back when it never does.
    """
    run_id = f"{strategy}_seed{seed}"
    path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_locked(path))
        _put_back(path)
        check_run_dir(path, overwrite=overwrite)
        _set_aside(path)
        run = Run(
            path, run_id, {"schema_version": RUN_SCHEMA, "id": run_id, "strategy": strategy, "seed": seed}
        )
        run.update(status="running", started_at=now(), ended_at=None, versions=versions(), **details)
        stack.enter_context(_logged_to(path / "logs"))
        try:
            yield run
        except BaseException as error:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            described = {"type": type(error).__name__, "message": str(error)}
            run.update(status="interrupted" if stopped else "failed", ended_at=now(), error=described)
            _put_back(path)
            raise
        run.update(status="finished", ended_at=now())
        shutil.rmtree(path / PREVIOUS, ignore_errors=True)


def now() -> str:
    """This moment in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def versions() -> dict[str, str]:
    """Versions of what a result depends on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in RECORDED_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"Another run is at work in {path}. Wait for it or choose another --output-dir."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _logged_to(folder: Path) -> Iterator[None]:
    """Everything the package logs meanwhile also goes to logs/training_<ts>.log."""
    folder.mkdir(exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    handler = logging.FileHandler(folder / f"training_{stamp}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("townlet_train")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()


def _left_by_a_run(path: Path) -> list[Path]:
    """The files a run writes, by name; whatever else lies there is somebody else's."""
    return [found for pattern in WRITTEN for found in path.glob(pattern)]


def _set_aside(path: Path) -> None:
    """Move what an earlier run left out of the way."""
    for found in _left_by_a_run(path):
        kept = path / PREVIOUS / found.relative_to(path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.rename(found, kept)


def _put_back(path: Path) -> None:
    """Undo `_set_aside` when the run that followed saved no checkpoint; else what was set aside is gone for good.

    The log of the run that failed stays.
    """
    previous = path / PREVIOUS
    if previous.exists() and not any(path.glob("*.zip")):
        for found in _left_by_a_run(path):
            if found.suffix != ".log":
                found.unlink()
        for found in _left_by_a_run(previous):
            os.rename(found, path / found.relative_to(previous))
    shutil.rmtree(previous, ignore_errors=True)
