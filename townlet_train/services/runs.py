"""One run, one directory: who may write to it, what is in it, and what became of it.

    run.json                 resolved config, params, versions, seeds, lineage, status
    metrics.jsonl            one line per report, appended and flushed; the truth the others derive from
    checkpoint_<step>.zip    as training went on
    {id}_model.zip           the checkpoint to use
    {id}_results.json        what was reached            {id}_metrics.json    the time series
    {strategy}_log.jsonl     what the strategy logs beside, where it does
    logs/training_<ts>.log   everything that was logged
    logs/metrics_<ts>.csv    the time series as a table
    logs/<plugin>/           what a plugin's logger leaves

A lock is held while the run lasts, so two runs never write to one directory.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from filelock import FileLock, Timeout

from townlet_train.data.checkpoint import checkpoints_after, sorted_checkpoints
from townlet_train.errors import EnvironmentCreationError, Interrupted, UsageError
from townlet_train.files import PARTIAL, atomic_path, make_folder, storing, to_json, write_json
from townlet_train.services.clock import now
from townlet_train.services.rolling import read_log, rewind
from townlet_train.services.run_files import METRICS, PREVIOUS, RUN, left_by_a_run, put_back, set_aside
from townlet_train.services.run_log import logged_to

RUN_SCHEMA = "1.0.0"
LOCK, MODEL = ".lock", "_model.zip"
KEPT = ("started_at", "resumed", "lineage")  # of run.json when a run is resumed where it was
PATIENCE = 0.2
logger = logging.getLogger(__name__)
EXPERIMENTS = Path("results/experiments")
_UNSAID: dict[type[BaseException], str] = {
    KeyboardInterrupt: "Interrupted at once.",
    MemoryError: "There was not enough memory.",
}
RECORDED_VERSIONS = ("townlet-train", "numpy", "torch", "safetensors", "gymnasium", "numba")


class Resumed(NamedTuple):
    """The checkpoint a run goes on from, and how far the run had come."""

    path: Path | None  # None: from its very beginning
    timestep: int = 0
    recorded: int = 0  # timestep of the last line in metrics.jsonl by then
    damaged: tuple[Path, ...] = ()  # later checkpoints that cannot be read
    again: bool = False  # the directory holds this run, stopped before it saved any checkpoint there
    longer_by: str | None = None  # the option that makes the run longer, where its method has one

    def continues(self, run_dir: Path) -> bool:
        """Whether the run goes on where it was."""
        own = self.path is not None and self.path.resolve().parent == run_dir.resolve()
        return ((run_dir / RUN).exists() and (own or self.again)) or (own and holds_run(run_dir))


def holds_run(path: Path) -> bool:
    """Whether a run wrote to the directory, even where its run.json is lost."""
    return (path / RUN).exists() or (path / METRICS).exists()


class Run:
    """A run directory that is open for writing; `open_run` makes one."""

    def __init__(self, path: Path, run_id: str, document: Mapping[str, Any]) -> None:
        self.path = path
        self.id = run_id
        self._document = dict(document)
        self._metrics_path = path / METRICS
        self._metrics: TextIO | None = None
        self.warnings: tuple[str, ...] = ()  # of what was found when it was opened

    @property
    def model_path(self) -> Path:
        """Where the checkpoint to use belongs."""
        return self.path / f"{self.id}{MODEL}"

    def record(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Append one line to metrics.jsonl, stamped with the time, and flush it; returns it as it is there."""
        stamped = {**line, "timestamp": now()}
        with storing(self._metrics_path):
            if self._metrics is None:
                self._metrics = self._metrics_path.open("a", encoding="utf-8")
            self._metrics.write(to_json(stamped) + "\n")
            self._metrics.flush()
        return stamped

    def close(self) -> None:
        """Close metrics.jsonl; another `record` opens it again."""
        if self._metrics is not None:
            with suppress(OSError):  # of what is flushed already, or was refused and told
                self._metrics.close()
            self._metrics = None

    def lines(self) -> list[dict[str, Any]]:
        """Every line recorded so far."""
        return read_log(self._metrics_path) if self._metrics_path.exists() else []

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


def run_id(strategy: str, seed: int) -> str:
    """What a run is called."""
    return f"{strategy}_seed{seed}"


def default_run_dir(strategy: str, seed: int) -> Path:
    """Where a run goes when nobody says."""
    return EXPERIMENTS / run_id(strategy, seed)


def model_path(run_dir: Path, strategy: str, seed: int) -> Path:
    """Where the checkpoint to use belongs."""
    return run_dir / f"{run_id(strategy, seed)}{MODEL}"


def check_run_dir(
    path: Path, *, overwrite: bool, resumed: Resumed | None = None, config_hash: str | None = None
) -> None:
    """Raise `UsageError` when a run may not start in `path`, or not go on there; changes nothing.

    A run that failed before it saved any checkpoint is in nobody's way. One that is finished goes on only with other
    settings than its own; `config_hash` is that of those it would go on with.
    """
    if resumed is not None and resumed.continues(path):
        later = [
            found.name for found in checkpoints_after(path, resumed.timestep) if found not in resumed.damaged
        ]
        if later and not overwrite:
            raise UsageError(
                f"{path} holds checkpoints after step {resumed.timestep}, up to {later[-1]}, which going on from there "
                f"replaces. Pass --overwrite, --resume-from latest or another --output-dir."
            )
        goes_on = overwrite or resumed.damaged or config_hash is None
        if not goes_on and _finished_with(path) == config_hash:
            longer = f"Raise {resumed.longer_by} to train on, or pass" if resumed.longer_by else "Pass"
            raise UsageError(
                f"The run in {path} is finished and nothing is left to do. {longer} --overwrite to repeat its last "
                f"part."
            )
        return
    if path.exists() and not path.is_dir():
        raise UsageError(f"The run directory {path} is a file. Choose another --output-dir.")
    if not path.exists() or all(_of_no_run(entry.name) for entry in path.iterdir()):
        return
    if not (path / RUN).exists():
        raise UsageError(_no_run(path))
    status = read_run(path / RUN)["status"]
    nothing_to_lose = status == "failed" and not any(path.glob("*.zip"))
    if not overwrite and not nothing_to_lose:
        how = "running, or killed while it was" if status == "running" else status
        raise UsageError(
            f"{path} already holds a run ({how}). Pass --overwrite to replace it or choose another --output-dir."
        )


def _finished_with(path: Path) -> str | None:
    """The hash of the settings with which the run of a directory came to its end; None where it did not."""
    if not (path / RUN).exists():
        return None
    document = read_run(path / RUN)
    found: str | None = document.get("config_hash")
    return found if document["status"] == "finished" else None


def _no_run(path: Path) -> str:
    """Why a directory without a run.json is not written to, and how to go on from what is in it."""
    checkpoints = sorted_checkpoints(path)
    if not checkpoints:
        return f"{path} is not empty and holds no run. Choose another --output-dir."
    newest = checkpoints[-1]
    if holds_run(path):
        return (
            f"{path} holds checkpoints up to {newest.name} and has lost its {RUN}. Go on with --resume-from latest, "
            f"or choose another --output-dir."
        )
    return (
        f"{path} holds checkpoints up to {newest.name}, and neither {RUN} nor {METRICS} of a run. Choose another "
        f"--output-dir; --resume-from {newest} goes on there."
    )


def _of_no_run(name: str) -> bool:
    """Whether a file is one that a run leaves which is killed before it has begun."""
    return name == LOCK or (name.startswith(".") and name.endswith(PARTIAL))


def read_run(path: Path) -> dict[str, Any]:
    """A run.json; `UsageError` when it is none."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document | {"status": str(document["status"])}
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UsageError(
            f"{path} is damaged, expected a JSON object with a status. Choose another --output-dir."
        ) from error


@contextmanager
def open_run(
    path: Path,
    *,
    strategy: str,
    seed: int,
    details: Mapping[str, Any],
    overwrite: bool,
    resumed: Resumed | None = None,
) -> Iterator[Run]:
    """A run directory to write to, locked while the block lasts; run.json says how the block ended.

    `details` go into run.json. Raises `UsageError` when another run is at work there, or was and `overwrite` is False.
    The run that is replaced is kept until the new one has saved a checkpoint, and is put back when it never does.
    A run that is resumed where it was goes on with its files, its metrics cut to what the checkpoint knows; elsewhere
    it begins with a copy of those metrics. One that begins again, having saved no checkpoint, loses all but its log.
    A run that is refused in an empty directory leaves it empty.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    with ExitStack() as stack:
        stack.enter_context(locked(path))
        stack.enter_context(_emptied_when_refused(path, missing))
        put_back(path)
        check_run_dir(path, overwrite=overwrite, resumed=resumed, config_hash=details.get("config_hash"))
        found_lost = holds_run(path) and not (path / RUN).exists()
        document: dict[str, Any] = {"schema_version": RUN_SCHEMA, "id": run_id(strategy, seed)}
        document |= {"strategy": strategy, "seed": seed, "started_at": now()}
        if resumed is not None and resumed.continues(path):
            before = read_run(path / RUN) if (path / RUN).exists() else {}
            document |= {name: before[name] for name in KEPT if name in before}
            for later in checkpoints_after(path, resumed.timestep):
                later.unlink()
            if resumed.again:
                _forget(path)
        else:
            set_aside(path)
        for unfinished in path.glob(f".*{PARTIAL}"):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        if resumed is not None:
            checkpoint = None if resumed.path is None else str(resumed.path)
            since = {"checkpoint": checkpoint, "timestep": resumed.timestep, "at": now()}
            document["resumed"] = [*document.get("resumed", ()), since]
        run = Run(path, document["id"], document)
        stack.callback(run.close)
        run.update(
            status="running", pid=os.getpid(), ended_at=None, error=None, versions=versions(), **details
        )
        if resumed is not None and resumed.path is not None:
            run.warnings = _rewind(resumed.path.parent / METRICS, path / METRICS, resumed.recorded)
        if found_lost:
            run.warnings += (f"{path / RUN} was lost and is written anew; when the run began is not known.",)
        stack.enter_context(logged_to(path / "logs"))
        if resumed is not None and resumed.again:
            logger.info("%s had saved no checkpoint, so it begins again as it began", run.id)
        try:
            yield run
        except BaseException as error:
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            described = {"type": type(error).__name__, "message": str(error) or _UNSAID.get(type(error), "")}
            with suppress(
                OSError
            ):  # on a full disk, what went wrong matters more than that it is not written down
                run.update(status="interrupted" if stopped else "failed", ended_at=now(), error=described)
            put_back(path)
            raise
        run.update(status="finished", ended_at=now())
        shutil.rmtree(path / PREVIOUS, ignore_errors=True)


@contextmanager
def _emptied_when_refused(path: Path, missing: list[Path]) -> Iterator[None]:
    """A directory that was empty is so again, and those that were missing are gone, where a run is refused.

    A run is refused by an error about what it was told, before it recorded or saved anything.
    """
    empty = all(_of_no_run(entry.name) for entry in path.iterdir())
    try:
        yield
    except (UsageError, EnvironmentCreationError):
        if empty and not any(path.glob("*.zip")) and not (path / METRICS).exists():
            for found in (*left_by_a_run(path), path / LOCK):
                found.unlink()
            folders = sorted((found for found in path.rglob("*") if found.is_dir()), reverse=True)
            for folder in (*folders, *missing):
                with suppress(OSError):  # somebody else put something there
                    folder.rmdir()
        raise


def _rewind(source: Path, target: Path, recorded: int) -> tuple[str, ...]:
    """Leave in `target` the lines of `source` up to the step `recorded`; a warning where there are fewer."""
    rewind(source, target, lambda line: bool(line["timestep"] <= recorded))
    reached = max((line["timestep"] for line in read_log(target)), default=0)
    if reached >= recorded:
        return ()
    lost = f"{source} ends at step {reached}, the checkpoint knows of lines up to step {recorded}"
    return (f"{lost}; those between are lost.",)


def _forget(path: Path) -> None:
    """Remove what a run wrote that begins again; what was logged stays, and run.json is about to be replaced."""
    for found in left_by_a_run(path):
        if found.suffix != ".log" and found.name != RUN:
            found.unlink()


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
def locked(path: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Be the only one who writes to a run directory; raises `UsageError` when somebody else still does after a while.

    `patience` is that while, in seconds: whoever only asks whether a run is going on holds the lock for an instant.
    """
    lock = FileLock(path / LOCK)
    try:
        with storing(path / LOCK):
            lock.acquire(timeout=patience)
    except Timeout as error:
        raise UsageError(
            f"A run is going on in {path}{_who(path)}. Wait for it or choose another --output-dir."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _who(path: Path) -> str:
    """Which process is at work in a directory, and since when, as far as its run.json says."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        document = json.loads((path / RUN).read_text(encoding="utf-8"))
        since = [document["started_at"], *(each["at"] for each in document.get("resumed", ()))][-1]
        if document["status"] == "running":
            return f" (pid {document['pid']}, since {since})"
    return ""


def recover_run_dir(path: Path) -> None:
    """Put back the run that a killed one was about to replace; raises `UsageError` when a run is going on there."""
    if (path / LOCK).exists():
        with locked(path):
            put_back(path)
