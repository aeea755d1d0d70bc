"""The files of a promotion directory: whether they agree, how a command changes them, what a killed one left.

A command changes them in this order, and the second step is the moment it has happened:

    1  the bytes to be released land in releases/; release.zip and state.json are written under temporary names
    2  the line is appended to ledger.jsonl
    3  release.zip is replaced by a rename
    4  state.json is replaced by a rename

So a state.json that is one line behind tells of a command that was killed after its line: what it had left to do is
done by the next one. Anything else that disagrees was not left by a kill.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from townlet_train.config.promotion import PROMOTION_DIR
from townlet_train.errors import CheckpointError, LedgerError, UsageError
from townlet_train.files import (
    PARTIAL,
    atomic_path,
    beside,
    flush_to_disk,
    make_folder,
    sha256_of,
    storing,
    to_json,
)
from townlet_train.results.promotion import PromotionProblem
from townlet_train.services.promotion.ledger import (
    FROM_BACKUP,
    LEDGER,
    Entry,
    Ledger,
    Mark,
    append,
    cut,
    line_problem,
    read_ledger,
)
from townlet_train.services.promotion.rules import RELEASING

STATE, RELEASE, RELEASES, LOCK = "state.json", "release.zip", "releases", ".lock"
BASELINES = "baselines.json"  # of anneals, by dataset label; no part of the ledger
STATE_SCHEMA = "1.0.0"
PATIENCE = 60.0  # seconds to wait for another command
LOOKS = 100  # at most, to find the files as they are between two commands
REMEMBERED = 50  # releases in state.json's history, as in Townlet's


@dataclass(frozen=True)
class Examined:
    """What the files say: the ledger, how many of its lines state.json knows, which bytes release.zip has."""

    ledger: Ledger
    known: int = 0
    released: str | None = None  # sha256
    problems: tuple[PromotionProblem, ...] = ()

    @property
    def unfinished(self) -> bool:
        """Whether a command is at work, or was killed, that has more to do."""
        return bool(self.ledger.torn) or self.known < len(self.ledger.entries)

    @property
    def rebuildable(self) -> bool:
        """Whether the ledger is sound, so that what disagrees with it can be made from it."""
        return {problem.file for problem in self.problems} <= {STATE, RELEASE}


def forget_promotion(path: Path, *, overwrite: bool) -> None:
    """Remove a promotion directory and all it knows, which only somebody may ask for who can make it again.

    Raises:
        UsageError: there is one, and it may not be overwritten, or it holds what no promotion left.
    """
    if not path.exists():
        return
    left = {LEDGER, STATE, RELEASE, RELEASES, LOCK, BASELINES}
    strange = [
        found.name for found in path.iterdir() if found.name not in left and not found.name.endswith(PARTIAL)
    ]
    if strange:
        raise UsageError(
            f"{path} holds {strange[0]}, which no promotion left. Move it away, or choose another --output-dir."
        )
    if not overwrite:
        raise UsageError(
            f"{path} already holds releases. Pass --overwrite to replace them or choose another --output-dir."
        )
    with storing(path):
        shutil.rmtree(path)


class PromotionFolder:
    """A promotion directory; everything that writes wants `locked` around it, and reading writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = path / LEDGER
        self.state = path / STATE
        self.release = path / RELEASE

    @property
    def exists(self) -> bool:
        """Whether anything was ever recorded here, or somebody began to; raises `UsageError` where a file is."""
        if self.path.is_file():
            raise UsageError(f"{self.path} is a file, expected a directory of releases. Name another one.")
        return self.ledger.exists() or self.state.exists() or self.release.exists()

    @property
    def option(self) -> str:
        """What a command needs said, after its name, to find the directory."""
        return "" if self.path == PROMOTION_DIR else f" --promotion-dir {shlex.quote(str(self.path))}"

    def stored(self, sha256: str) -> Path:
        """Where released bytes are kept."""
        return self.path / RELEASES / f"{sha256}.zip"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes here meanwhile.

        Raises:
            UsageError: another command kept it locked for a minute.
            StorageError: nothing can be written there.
        """
        make_folder(self.path)
        lock = FileLock(self.path / LOCK)
        try:
            with storing(self.path / LOCK):
                lock.acquire(timeout=PATIENCE)
        except Timeout as error:
            raise UsageError(
                f"Another command has been at work in {self.path} for a minute. Wait for it and try again."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def look(self) -> Examined:
        """`examine` between two changes, without a lock: what others wrote meanwhile is read anew."""
        for _ in range(LOOKS):
            before = self._stamps()
            examined = self.examine()
            if self._stamps() == before:
                return examined
        with self.locked():  # somebody never stops writing
            return self.examine()

    def examine(self) -> Examined:
        """The directory as it is, with everything that no kill explains."""
        content = self.ledger.read_bytes() if self.ledger.exists() else b""
        seen = self._seen()
        mark = seen if isinstance(seen, Mark) else None
        ledger = read_ledger(content, mark)
        released = sha256_of(self.release) if self.release.exists() else None
        if ledger.problem is not None:
            return Examined(ledger, problems=(ledger.problem,))
        if isinstance(seen, PromotionProblem):
            return Examined(ledger, released=released, problems=(seen,))
        known = mark.lines if mark is not None else 0
        problems = (*self._state_problems(ledger, mark), *self._release_problems(ledger, known, released))
        return Examined(ledger, known, released, problems)

    def damaged_releases(self, ledger: Ledger) -> tuple[PromotionProblem, ...]:
        """What is wrong with the bytes that are kept of everything ever released."""
        damage = ((sha256, self._damage(sha256)) for sha256 in released(ledger))
        return tuple(
            _problem(f"{RELEASES}/{sha256}.zip", what, FROM_BACKUP) for sha256, what in damage if what
        )

    def _damage(self, sha256: str) -> str | None:
        """What is wrong with the bytes that are kept of a release, if anything is."""
        if not self.stored(sha256).exists():
            return "is missing"
        if sha256_of(self.stored(sha256)) != sha256:
            return "does not have the bytes that its name says"
        return None

    def sound(self) -> tuple[Ledger, tuple[str, ...]]:
        """The ledger, after doing what a killed command had left to do; and what that was.

        Raises:
            LedgerError: the directory is not as it was written.
        """
        examined = self.examine()
        self.check(examined)
        return examined.ledger, self.finish(examined)

    def check(self, examined: Examined) -> None:
        """Raise `LedgerError` when the directory is not as it was written."""
        if examined.problems:
            raise LedgerError(f"{self.path}: {examined.problems[0].problem}")

    def finish(self, examined: Examined) -> tuple[str, ...]:
        """Do what a killed command had left to do, and say what it was."""
        ledger, done = examined.ledger, []
        stored = (self.path / RELEASES).glob(f".*{PARTIAL}")
        for leftover in (*beside(self.state, PARTIAL), *beside(self.release, PARTIAL), *stored):
            leftover.unlink()
        if self._cut_torn(ledger):
            done.append(f"Half a line was cut off {LEDGER}: the command that wrote it was killed.")
        if examined.known < len(ledger.entries):
            self._follow(ledger, self._new_release(ledger, examined.released))
            last = ledger.entries[-1].line
            done.append(
                f"Line {last.line} of {LEDGER} ({last.event}) was finished: {STATE} and {RELEASE} follow it."
            )
        return tuple(done)

    def commit(self, ledger: Ledger, entry: Entry) -> Ledger:
        """Make an entry happen; the bytes it releases are stored already.

        Raises:
            StorageError: the disk is full, or the place cannot be written to; then nothing has happened.
            LedgerError: the bytes stored are not those to be released.
        """
        after = ledger.with_entry(entry)
        releasing = entry.line.event in RELEASING
        self._follow(after, entry.standing.release_sha256 if releasing else None, entry.line.raw())
        return after

    def rebuild(self, examined: Examined, entry: Entry) -> Ledger:
        """Append an entry, and make state and release from the ledger whatever they are."""
        after = examined.ledger.with_entry(entry)
        self._cut_torn(examined.ledger)
        self._follow(after, self._new_release(after, examined.released), entry.line.raw())
        if after.standing.release_sha256 is None:
            self.release.unlink(missing_ok=True)
        return after

    def store(self, source: Path, sha256: str) -> None:
        """Keep the bytes of a file that is about to be released.

        Raises:
            CheckpointError: it is not there, or has other bytes than this hash.
        """
        check_bytes(source, sha256)
        target = self.stored(sha256)
        with atomic_path(target) as partial:
            shutil.copyfile(source, partial)
            check_bytes(source, sha256, read_from=partial)
        with storing(target):
            flush_to_disk(self.path)

    def _follow(self, ledger: Ledger, release: str | None, line: bytes | None = None) -> None:
        """Bring state.json, and release.zip where `release` is a hash, to where the ledger is, or is after `line`."""
        with ExitStack() as stack:  # the last entered is renamed first
            state = stack.enter_context(atomic_path(self.state))
            state.write_bytes(state_document(ledger.entries))
            flush_to_disk(state)
            if release is not None:
                staged = stack.enter_context(atomic_path(self.release))
                self._copy_stored(release, staged)
                flush_to_disk(staged)
            if line is not None:
                append(self.ledger, line)

    def _cut_torn(self, ledger: Ledger) -> bool:
        """Cut the beginning of a line off the ledger; whether there was one."""
        if ledger.torn:
            cut(self.ledger, self.ledger.stat().st_size - len(ledger.torn))
        return bool(ledger.torn)

    def _copy_stored(self, sha256: str, target: Path) -> None:
        source = self.stored(sha256)
        if not source.exists():
            raise LedgerError(f"{source} is missing, and it was released. {FROM_BACKUP}.")
        shutil.copyfile(source, target)
        if sha256_of(target) != sha256:
            raise LedgerError(
                f"{source} does not have the bytes that were released under this name. {FROM_BACKUP}."
            )

    def _new_release(self, ledger: Ledger, released: str | None) -> str | None:
        """The release, where release.zip is something else."""
        wanted = ledger.standing.release_sha256
        return wanted if wanted != released else None

    def _stamps(self) -> list[tuple[int, int, int]]:
        """What changes whenever one of the files does."""
        found = [path.stat() for path in (self.ledger, self.state, self.release) if path.exists()]
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found]

    def _from_ledger(self) -> str:
        return f"`townlet-train promotion verify --rebuild{self.option}` writes it anew from the ledger"

    def _seen(self) -> Mark | PromotionProblem | None:
        """How far the ledger was when state.json was written; None where there is no state.json."""
        if not self.state.exists():
            return None
        try:
            mark = json.loads(self.state.read_bytes())["ledger"]
            if mark["lines"] < 1:
                raise ValueError("no lines")
            return Mark(mark["lines"], mark["sha256"])
        except (ValueError, LookupError, TypeError):
            return _problem(STATE, "is not readable", self._from_ledger())

    def _state_problems(self, ledger: Ledger, seen: Mark | None) -> Iterator[PromotionProblem]:
        lines = len(ledger.entries)
        if seen is None:
            if lines > 1:  # a kill can leave the first line without it
                yield _problem(STATE, "is missing", self._from_ledger())
        elif seen.lines > lines:
            line = lines + 1
            told = f"is missing, and {STATE} knows of {seen.lines}: the end of {LEDGER} was removed"
            yield line_problem(line, told)
        elif lines - seen.lines > 1:
            told = f"was not known when {STATE} was written, and no kill leaves it behind by two"
            yield line_problem(seen.lines + 1, told)
        elif seen.lines and ledger.entries[seen.lines - 1].sha256 != seen.sha256:
            yield line_problem(seen.lines, f"its bytes do not have the hash that {STATE} holds of it")
        elif self.state.read_bytes() != state_document(ledger.entries[: seen.lines]):
            yield _problem(STATE, f"is not what {seen.lines} lines of {LEDGER} lead to", self._from_ledger())

    def _release_problems(
        self, ledger: Ledger, known: int, released: str | None
    ) -> Iterator[PromotionProblem]:
        expected = [entry.standing.release_sha256 for entry in ledger.entries[-2:]]
        if not ledger.entries or known == len(ledger.entries):
            expected = [ledger.standing.release_sha256]
        elif len(expected) == 1:
            expected.append(None)
        if released not in expected:
            what = "is missing" if released is None else f"has sha256 {released:.12}"
            wanted = ledger.standing.release_sha256
            named = f"releases {wanted:.12}" if wanted else "has released nothing"
            yield _problem(RELEASE, f"{what}, and {LEDGER} {named}", self._from_ledger())


def check_bytes(path: Path, sha256: str, *, read_from: Path | None = None) -> None:
    """Raise `CheckpointError` when a file, or the copy of it to read from, is not there or has another hash."""
    if not path.is_file():
        raise CheckpointError(f"The candidate {path} is not there. Put it back or gate it anew.")
    found = sha256_of(read_from or path)
    if found != sha256:
        raise CheckpointError(
            f"{path} has changed since it was evaluated: its sha256 is {found:.12}, not {sha256:.12}. Gate it anew."
        )


def released(ledger: Ledger) -> tuple[str, ...]:
    """Hashes of everything that was ever released, in that order."""
    return tuple(
        dict.fromkeys(
            entry.line.release.sha256
            for entry in ledger.entries
            if entry.line.event in RELEASING and entry.line.release is not None
        )
    )


def state_document(entries: Sequence[Entry]) -> bytes:
    """The bytes of state.json after these lines."""
    last = entries[-1]
    history = [entry.line for entry in entries if entry.line.event in RELEASING][-REMEMBERED:]
    told = {"event", "tick", "metadata", "previous_release", "release"}
    document = {
        "schema_version": STATE_SCHEMA,
        **last.line.state.model_dump(mode="json"),
        "history": [line.model_dump(mode="json", include=told) for line in history],
        "ledger": {"lines": len(entries), "sha256": last.sha256},
    }
    return (to_json(document, indent=2) + "\n").encode()


def _problem(file: str, what: str, remedy: str) -> PromotionProblem:
    return PromotionProblem(file=file, problem=f"{file} {what}. {remedy}.")
