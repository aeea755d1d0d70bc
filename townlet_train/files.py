"""How a file lands: whole or not at all; and how a document becomes JSON any program can read.

Everything townlet-train writes goes through here: a temporary file beside the target, flushed to disk, renamed over it,
and the directory flushed, so that a crash leaves the old file or the new one and never half of either.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from townlet_train.errors import StorageError

REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
REFUSALS |= {errno.ENOTDIR, errno.EEXIST}  # a file stands where a directory is needed
REFUSALS |= {errno.ENAMETOOLONG}
PARTIAL = ".partial"  # how the name of what is not whole ends
_PLAIN = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
REPLACED = ".replaced"  # how the name of a whole directory ends while another takes its place


@contextmanager
def storing(target: Path) -> Iterator[None]:
    """Tell what the storage refuses, a full disk or missing rights, as `StorageError` about `target`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in REFUSALS:
            raise
        raise StorageError(target, error) from error


def make_folder(path: Path) -> None:
    """Make a directory and those above it, where they are missing.

    Raises:
        StorageError: the file system has no room for it, or allows none there.
    """
    with storing(path), _told_of(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Raise `StorageError` where nothing can be written in a directory that is there."""
    with storing(folder), _told_of(folder), tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Tell as `StorageError` that nothing can be made in a folder which is there, or that is no folder."""
    try:
        yield
    except FileNotFoundError as error:  # of file systems that the operating system makes up, as /proc
        raise StorageError(path, error) from error
    except FileExistsError as error:
        raise StorageError(error.filename, NotADirectoryError(errno.ENOTDIR, "Not a directory")) from error


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` to write to; it becomes `target` when the block ends without an error.

    Raises:
        StorageError: the disk is full, or the place cannot be written to.
    """
    with storing(target):
        make_folder(target.parent)
        with _told_of(target):
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            os.chmod(partial, 0o666 & ~_umask())
            flush_to_disk(partial)
            os.replace(partial, target)
            flush_to_disk(target.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A temporary directory beside `target` to fill; it becomes `target` when the block ends without an error.

    A directory that stood at `target` is gone then. What a killed process leaves behind ends in `PARTIAL`, or in
    `REPLACED` where it is what stood there; `restore_replaced` puts that back.
    """
    with storing(target):
        make_folder(target.parent)
        with _told_of(target):
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent))
        replaced = partial.with_suffix(REPLACED)
        try:
            yield partial
            os.chmod(partial, 0o777 & ~_umask())
            for path in (*partial.rglob("*"), partial):
                flush_to_disk(path)
            if target.exists():
                os.rename(target, replaced)
            os.rename(partial, target)
            flush_to_disk(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if replaced.exists():
                if target.exists():
                    shutil.rmtree(replaced)
                else:
                    os.rename(replaced, target)


def restore_replaced(target: Path) -> list[Path]:
    """Put back the directory a killed process had set aside, when `target` is missing; returns where it was, if any."""
    set_aside = [] if target.exists() else beside(target, REPLACED)[-1:]
    for path in set_aside:
        os.rename(path, target)
    return set_aside


def beside(target: Path, ending: str) -> list[Path]:
    """What stands beside `target` under a temporary name of it with this ending, oldest first."""
    found = target.absolute().parent.glob(f".{glob.escape(target.name)}.*{ending}")
    return sorted(found, key=lambda path: path.stat().st_mtime)


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content` to `target`, whole or not at all."""
    with atomic_path(target) as partial:
        partial.write_bytes(content)


def write_json(target: Path, document: Any) -> None:
    """Write `document` as strict JSON to `target`, whole or not at all."""
    write_bytes(target, (to_json(document, indent=2) + "\n").encode())


def to_json(document: Any, *, indent: int | None = None) -> str:
    """Strict JSON. NaN and infinities become null, and an object at the top then names them under `non_finite`.

    >>> to_json({"loss": float("nan"), "epoch": 1})
    '{"loss": null, "epoch": 1, "non_finite": ["/loss"]}'
    """
    with suppress(
        TypeError, ValueError
    ):  # most documents are plain and finite, which is found out in no time
        if indent is None:
            return _PLAIN.encode(document)
        return json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    found: list[str] = []
    clean = _finite(document, "", found)
    if found and isinstance(clean, dict):
        clean["non_finite"] = found
    return json.dumps(clean, indent=indent, ensure_ascii=False, allow_nan=False)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in constant memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Ask the operating system to put a file or a directory entry on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any, pointer: str, found: list[str]) -> Any:
    """`value` as plain JSON types; the JSON pointers of non-finite numbers are appended to `found`."""
    if isinstance(value, float) and not math.isfinite(value):
        found.append(pointer or "/")
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item, f"{pointer}/{key}", found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, f"{pointer}/{index}", found) for index, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy to ask
        return _finite(value.tolist(), pointer, found)
    return value


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
