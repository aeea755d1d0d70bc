"""The ledger: one JSON line for everything that happened, each holding the sha256 of the line before.

A line also holds what it leads to. Reading one therefore means to write it again from the lines before it, by the
rules, and to compare the bytes; what differs was not written by this program, or was moved.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from townlet_train.errors import UsageError
from townlet_train.files import flush_to_disk, storing, to_json
from townlet_train.results.promotion import CandidateDTO, PromotionProblem, PromotionSnapshot
from townlet_train.services.promotion.rules import Evaluation, Event, Remark, Standing, after

LEDGER = "ledger.jsonl"
FROM_BACKUP = "Restore the directory from a backup, or begin a new one"
NO_LINE = "0" * 64  # what the first line holds in place of a hash


class Line(BaseModel):
    """What happened, and what it led to; event names and keys from `event` on are Townlet's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    previous: str
    schema_version: Literal["1.0.0"] = "1.0.0"
    at: str
    event: Event
    tick: int
    metadata: Evaluation | Remark
    previous_release: CandidateDTO | None
    release: CandidateDTO | None
    state: PromotionSnapshot

    def raw(self) -> bytes:
        """The bytes of the line, without the end of line."""
        return to_json(self.model_dump(mode="json")).encode()


class Entry(NamedTuple):
    """A line, the hash of its bytes, and where things stand after it."""

    line: Line
    sha256: str
    standing: Standing


class Mark(NamedTuple):
    """How far somebody has seen the ledger: how many lines, and the hash of the last of them."""

    lines: int
    sha256: str


@dataclass(frozen=True)
class Ledger:
    """What a ledger's bytes come to: its sound lines, what follows them that is no whole line, what is wrong."""

    entries: tuple[Entry, ...] = ()
    torn: bytes = b""
    problem: PromotionProblem | None = None

    @property
    def standing(self) -> Standing:
        """Where things stand now."""
        return self.entries[-1].standing if self.entries else Standing()

    @property
    def mark(self) -> Mark:
        """Number of lines, and the hash of the last."""
        return Mark(len(self.entries), self.entries[-1].sha256 if self.entries else NO_LINE)

    def with_entry(self, entry: Entry) -> Ledger:
        """The ledger with one line more."""
        return Ledger((*self.entries, entry))


def next_entry(
    mark: Mark,
    before: Standing,
    event: Event,
    metadata: Evaluation | Remark,
    *,
    at: str,
    release: CandidateDTO | None = None,
) -> Entry:
    """The line for an event after those of `mark`; `release` is what a policy swap brings in.

    Raises:
        UsageError: the rules do not allow the event.
    """
    standing = after(before, event, metadata, release)
    line = Line(
        line=mark.lines + 1,
        previous=mark.sha256,
        at=at,
        event=event,
        tick=standing.tick,
        metadata=metadata,
        previous_release=before.snapshot.current_release,
        release=standing.snapshot.current_release,
        state=standing.snapshot,
    )
    return Entry(line, hashlib.sha256(line.raw()).hexdigest(), standing)


def read_ledger(content: bytes, seen: Mark | None) -> Ledger:
    """A ledger's lines up to the first that is not as it was written; `seen` vouches for the last.

    A killed writer leaves the beginning of a line at the end; that is `torn`, not a problem.
    """
    *lines, tail = content.split(b"\n")
    entries: list[Entry] = []
    mark, standing = Mark(0, NO_LINE), Standing()
    for number, raw in enumerate(lines, start=1):
        try:
            entry = _read_line(mark, standing, raw)
        except _Broken as error:
            return Ledger(tuple(entries), problem=line_problem(number, str(error)))
        except _ForeignHash:
            if number > 1 and _vouched(lines, number, seen):
                edited = "its bytes do not have the hash that the next line holds of it"
                return Ledger(tuple(entries[:-1]), problem=line_problem(number - 1, edited))
            foreign = "it does not hold the hash of the line before it"
            return Ledger(tuple(entries), problem=line_problem(number, foreign))
        entries.append(entry)
        mark, standing = Mark(number, entry.sha256), entry.standing
    beginning = f'{{"line": {mark.lines + 1}, "previous": "{mark.sha256}", '.encode()
    if not (tail.startswith(beginning) or beginning.startswith(tail)):
        problem = line_problem(mark.lines + 1, "it is not whole, and not the beginning of a line either")
        return Ledger(tuple(entries), problem=problem)
    return Ledger(tuple(entries), torn=tail)


class _Broken(Exception):
    """A line that nobody could have written there."""


class _ForeignHash(Exception):
    """A line whose hash of the line before is another: one of the two was edited."""


def line_problem(number: int, what: str) -> PromotionProblem:
    """Something that is wrong with a line."""
    return PromotionProblem(
        file=LEDGER, line=number, problem=f"Line {number} of {LEDGER}: {what}. {FROM_BACKUP}."
    )


def _read_line(mark: Mark, before: Standing, raw: bytes) -> Entry:
    """The line that continues a ledger; raises when these bytes are not it."""
    try:
        told = Line.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _Broken(f"it is no line of a ledger ({where + ': ' if where else ''}{first['msg']})") from error
    if told.line != mark.lines + 1:
        raise _Broken(f"it says it is line {told.line}: lines were removed, added or moved")
    if told.previous != mark.sha256:
        raise _ForeignHash
    try:
        swapped_in = told.release if told.event == "policy_swap" else None
        made = next_entry(mark, before, told.event, told.metadata, at=told.at, release=swapped_in)
    except UsageError as error:
        raise _Broken(f"what it tells could not have happened then. {error}".rstrip(".")) from error
    for name in ("tick", "previous_release", "release", "state"):
        if getattr(told, name) != getattr(made.line, name):
            raise _Broken(f"its `{name}` is not what the lines before it and the event lead to")
    if made.line.raw() != raw:
        raise _Broken("its bytes are not those that this program writes")
    return made


def _vouched(lines: Sequence[bytes], number: int, seen: Mark | None) -> bool:
    """Whether a line's bytes have the hash that the next line, or who has seen the ledger, holds of them."""
    sha256 = hashlib.sha256(lines[number - 1]).hexdigest()
    if seen is not None and seen.lines == number:
        return seen.sha256 == sha256
    try:
        held: object = json.loads(lines[number])["previous"]
    except (IndexError, ValueError, LookupError, TypeError):
        return False
    return held == sha256


def append(path: Path, raw: bytes) -> None:
    """Append one line and put it on the disk; on an error the file is as long as before.

    Raises:
        StorageError: the disk is full, or the file cannot be written to.
    """
    new = not path.exists()
    with storing(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            length = os.fstat(descriptor).st_size
            try:
                rest = raw + b"\n"
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, length)
                raise
        finally:
            os.close(descriptor)
        if new:
            flush_to_disk(path.parent)


def cut(path: Path, length: int) -> None:
    """Cut a file to this many bytes, on the disk."""
    with storing(path):
        os.truncate(path, length)
        flush_to_disk(path)
