"""In what two runs differ, and in what they only differ because they are two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from townlet_train.results import RunDiffDTO, RunDifferenceDTO
from townlet_train.results.runs import Value
from townlet_train.services.recorded import RecordedRun, flatten, read_recorded

UNLIKE = ("duration_sec", "checkpoint", "timestamp", "policy")  # of the moment, or of where a run lies
RATES = ("_sec", "_per_sec", "_seconds")


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
    changed = _differences(*settings)
    versions = _differences(*(flatten(run.part("versions")) for run in runs))
    return RunDiffDTO(
        first=str(first),
        second=str(second),
        settings=changed,
        versions=versions,
        reached=_differences(*reached),
        same_settings=not changed and not versions,
        warnings=tuple(sentence for run in runs for sentence in _doubts(run)),
    )


def _doubts(run: RecordedRun) -> Iterator[str]:
    """Why what a run is compared by may not be all of it."""
    yield from run.damage.values()
    if not run.reached:
        yield f"{run.path} has no whole results document, so what it reached is not known."


def _differences(first: Mapping[str, Value], second: Mapping[str, Value]) -> tuple[RunDifferenceDTO, ...]:
    """Every name whose values differ, or that only one has, in the order of first sight."""
    absent = object()
    return tuple(
        RunDifferenceDTO(name=name, first=first.get(name), second=second.get(name))
        for name in dict.fromkeys((*first, *second))
        if first.get(name, absent) != second.get(name, absent)
    )


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
