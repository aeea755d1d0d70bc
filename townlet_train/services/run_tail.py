"""The last lines a run recorded, and each as it is recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from townlet_train.results import RunTailDTO
from townlet_train.services.recorded import RUNNING, flatten, last_lines, read_recorded
from townlet_train.services.run_files import METRICS, RUN


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
    recorded, offset = last_lines(log, n)
    yield from (line.decode("utf-8", "replace") for line in recorded)
    while True:
        going = read_recorded(path).status == RUNNING
        lines, offset = _new_lines(log, offset)
        yield from lines
        if not going:
            return
        if not lines:
            wait()


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
