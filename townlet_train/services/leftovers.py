"""What run directories can do without: older checkpoints, and what killed processes left half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from townlet_train.data.checkpoint import sorted_checkpoints
from townlet_train.errors import UsageError
from townlet_train.files import PARTIAL, sha256_of, storing
from townlet_train.results import RunLeftoverDTO, RunsGcDTO
from townlet_train.services.recorded import DAMAGED, RUNNING, RecordedRun, find_runs
from townlet_train.services.runs import locked

TELLING = ("run.json", "*_results.json", "ledger.jsonl", "anneal_log*.jsonl")  # files that name checkpoints


def collect_leftovers(roots: Sequence[Path], *, keep: int, delete: bool) -> RunsGcDTO:
    """List, or delete, what the runs below some directories can do without.

    A run keeps its model file, its `keep` newest checkpoints, and every checkpoint that a run or a promotion below
    the same directories names by path or sha256. Runs at work, and damaged ones, are left alone.

    Raises:
        UsageError: one of the directories is none.
    """
    warnings: list[str] = []
    runs = list(find_runs(roots, warnings.append))
    named = _Named(roots)
    files: list[RunLeftoverDTO] = []
    for run in runs:
        if run.status in (RUNNING, DAMAGED):
            warnings.append(f"{run.path} is {run.status} and was left alone.")
            continue
        try:
            with locked(run.path) if delete else nullcontext():
                found = list(_leftovers(run, keep, named))
                for leftover in found if delete else ():
                    _remove(Path(leftover.path))
        except UsageError as error:
            warnings.append(str(error))
            continue
        files += found
    return RunsGcDTO(
        roots=tuple(map(str, roots)),
        keep=keep,
        deleted=delete,
        files=tuple(files),
        protected=named.protected,
        bytes=sum(file.bytes for file in files),
        warnings=tuple(warnings),
    )


class _Named:
    """Which checkpoints are named anywhere below some directories."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.protected = 0
        self._words: set[str] = set()
        for root in roots:
            for pattern in TELLING:
                for path in root.rglob(pattern):
                    self._read(path)

    def __call__(self, checkpoint: Path) -> bool:
        """Whether somebody names it; counted as protected then."""
        named = str(checkpoint.resolve()) in self._words or sha256_of(checkpoint) in self._words
        self.protected += named
        return named

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8", errors="replace")
        for document in [text] if path.suffix == ".json" else text.split("\n"):
            try:
                words = set(_strings(json.loads(document)))
            except ValueError:
                continue  # a damaged document names nothing that could be told
            self._words |= words
            for word in words:
                if word.endswith(
                    ".zip"
                ):  # a path, of this folder or of that of the document where it is relative
                    self._words |= {str(Path(word).resolve()), str((path.parent / word).resolve())}


def _strings(value: object) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _leftovers(run: RecordedRun, keep: int, named: _Named) -> Iterator[RunLeftoverDTO]:
    checkpoints = sorted_checkpoints(run.path)
    for checkpoint in checkpoints[: max(len(checkpoints) - keep, 0)]:
        if not named(checkpoint):
            yield _leftover(checkpoint, "older than the checkpoints that are kept")
    partial = sorted(run.path.rglob(f".*{PARTIAL}"))
    for unfinished in (path for path in partial if not set(path.parents) & set(partial)):
        yield _leftover(unfinished, "left half-written by a process that was killed")


def _leftover(path: Path, why: str) -> RunLeftoverDTO:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return RunLeftoverDTO(path=str(path), bytes=sum(file.stat().st_size for file in files), why=why)


def _remove(path: Path) -> None:
    with storing(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
