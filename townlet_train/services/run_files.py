"""The files a run writes, and how those of an earlier run make way for a new one and come back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

RUN, METRICS, PREVIOUS = "run.json", "metrics.jsonl", ".previous"
WHOLE, RETURNING = ".whole", ".returning"  # how far setting a run aside, and putting it back, have come
WRITTEN = (
    RUN,
    METRICS,
    "*_log*.jsonl",
    "checkpoint_*.zip",
    "*_model.zip",
    "*_results.json",
    "*_metrics.json",
    "logs/training_*.log",
    "logs/metrics_*.csv",
    "stages/*/*",  # of an anneal, and what it captured
    "demonstrations/*",
    "logs/*/*",  # of loggers that plugins add
)


def left_by_a_run(path: Path) -> list[Path]:
    """The files a run writes, by name; whatever else lies there is somebody else's."""
    return [found for pattern in WRITTEN for found in path.glob(pattern) if not found.is_dir()]


def set_aside(path: Path) -> None:
    """Move what an earlier run left out of the way; `WHOLE` says that all of it was."""
    found = left_by_a_run(path)
    for each in found:
        kept = path / PREVIOUS / each.relative_to(path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.rename(each, kept)
    if found:
        (path / PREVIOUS / WHOLE).touch()


def put_back(path: Path) -> None:
    """Undo `set_aside` when the run that followed saved no checkpoint; else what was set aside is gone for good.

    Killed at any moment, the next call goes on with it. The log of the run that failed stays.
    """
    previous = path / PREVIOUS
    whole, returning = previous / WHOLE, previous / RETURNING
    replaced = whole.exists() and not returning.exists()  # what lies in `path` is the new run's
    if previous.exists() and not (replaced and any(path.glob("*.zip"))):
        for found in left_by_a_run(path) if replaced else ():
            if found.suffix != ".log":
                found.unlink()
        returning.touch()
        for found in left_by_a_run(previous):
            os.replace(found, path / found.relative_to(previous))
    shutil.rmtree(previous, ignore_errors=True)
