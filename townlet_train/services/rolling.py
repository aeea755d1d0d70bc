"""A log of JSON lines that begins a new file whenever one is full: name.jsonl, then name.1.jsonl, name.2.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from townlet_train.errors import DataError
from townlet_train.files import storing, to_json, write_bytes
from townlet_train.services.clock import now


class RollingLog:
    """Appends records, each on disk as a whole line when `append` returns; goes on where the files end."""

    def __init__(self, path: Path, max_entries: int | None = None) -> None:
        self._path, self._max_entries = path, max_entries
        self._index = max(len(log_files(path)) - 1, 0)
        self._entries = len(whole_lines(self._current)) if self._current.exists() else 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record behind the others."""
        if self._max_entries is not None and self._entries >= self._max_entries:
            self._index, self._entries = self._index + 1, 0
        with storing(self._current), self._current.open("a", encoding="utf-8") as stream:
            stream.write(to_json(dict(record)) + "\n")
        self._entries += 1

    @property
    def _current(self) -> Path:
        return rolled(self._path, self._index)


class EventLog:
    """A log of JSON lines that a run can be taken back in; each is stamped with the time."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, RollingLog(path)

    def append(self, event: Mapping[str, Any]) -> None:
        """Write one event behind the others."""
        self._log.append({**event, "timestamp": now()})

    def rewind(self, source: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Leave the events of `source`, which may be this log, that are to be kept."""
        rewind(source, self._path, keep)


def rewind(source: Path, target: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Leave in the log `target` the records of the log `source`, which may be the same, that are to be kept.

    Raises:
        DataError: a whole line is no record.
    """
    for index, path in reversed([*enumerate(log_files(source))]):  # killed in between, no hole is left
        kept = [line for line, record in _records(path) if keep(record)]
        if kept:
            write_bytes(rolled(target, index), "".join(kept).encode())
        else:
            rolled(target, index).unlink(missing_ok=True)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every whole record, in the order in which they were written."""
    return [record for file in log_files(path) for _, record in _records(file)]


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every whole line of a file, and the record that it is."""
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            yield line, json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number} is not JSON; the file was damaged. Remove this line and those after it, to go "
                f"on without them."
            ) from error


def log_files(path: Path) -> list[Path]:
    """The files of a log, oldest first."""
    return list(takewhile(Path.exists, (rolled(path, index) for index in count())))


def rolled(path: Path, index: int) -> Path:
    """The name of a log's file; the first has that of the log.

    >>> rolled(Path("ppo_log.jsonl"), 2).name
    'ppo_log.2.jsonl'
    """
    return path if index == 0 else path.with_suffix(f".{index}{path.suffix}")


def whole_lines(path: Path) -> list[str]:
    """The lines of a file, without a last one that a crash left unfinished.

    Raises:
        DataError: a line before the last is no text; it is named.
    """
    lines = path.read_bytes().split(b"\n")
    try:
        return [line.decode("utf-8") + "\n" for line in lines[:-1]]
    except UnicodeDecodeError as error:
        number = 1 + next(i for i, line in enumerate(lines) if error.object == line)
        raise DataError(
            f"{path}, line {number} is damaged: {error}. Restore the file or begin a new run."
        ) from error
