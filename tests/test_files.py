"""A file lands whole or not at all, whatever happens meanwhile; and a document is JSON any program can read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from townlet_train.files import (
    PARTIAL,
    REPLACED,
    atomic_directory,
    atomic_path,
    beside,
    restore_replaced,
    sha256_of,
    to_json,
    write_bytes,
    write_json,
)

OLD, NEW = b"old" * 100_000, b"new" * 100_000

REWRITE_FOR_EVER = """
import sys
from pathlib import Path
from townlet_train.files import atomic_directory, write_bytes
target, kind = Path(sys.argv[1]), sys.argv[2]
contents = [b"old" * 100_000, b"new" * 100_000]
for turn in range(10**9):
    if kind == "file":
        write_bytes(target, contents[turn % 2])
    else:
        with atomic_directory(target) as partial:
            (partial / "a").write_bytes(contents[turn % 2])
            (partial / "b").write_bytes(contents[turn % 2])
    if turn == 3:
        print("started", flush=True)
"""


@pytest.fixture
def umask() -> Iterator[int]:
    """A strict file mode mask, put back afterwards."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def kill_while_rewriting(target: Path, kind: str, after: float) -> None:
    """Let another process rewrite `target` over and over, and kill it with -9."""
    writer = subprocess.Popen(
        [sys.executable, "-c", REWRITE_FOR_EVER, str(target), kind], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "started\n"
        time.sleep(after)
        writer.send_signal(signal.SIGKILL)


def write_half_a_file(target: Path, error: type[BaseException]) -> None:
    with atomic_path(target) as partial:
        partial.write_bytes(b"half")
        raise error


def fill_half_a_directory(target: Path, error: type[BaseException]) -> None:
    with atomic_directory(target) as partial:
        (partial / "a").write_bytes(b"half")
        raise error


@pytest.mark.parametrize("after", [0.0, 0.013, 0.037])
def test_a_file_killed_while_it_is_rewritten_is_the_old_or_the_new(tmp_path: Path, after: float) -> None:
    target = tmp_path / "model.zip"
    kill_while_rewriting(target, "file", after)
    assert target.read_bytes() in (OLD, NEW)
    assert all(name.startswith(".model.zip.") and name.endswith(PARTIAL) for name in leftovers(tmp_path))
    write_bytes(target, b"next")
    assert target.read_bytes() == b"next"


@pytest.mark.parametrize("after", [0.0, 0.013, 0.037])
def test_a_directory_killed_while_it_is_rewritten_is_never_a_mixture(tmp_path: Path, after: float) -> None:
    target = tmp_path / "capture"
    kill_while_rewriting(target, "directory", after)
    restore_replaced(target)
    assert (target / "a").read_bytes() == (target / "b").read_bytes()
    assert all(name.endswith((PARTIAL, REPLACED)) for name in leftovers(tmp_path))


DIE_BETWEEN_THE_RENAMES = """
import os, signal, sys
from pathlib import Path
from townlet_train.files import atomic_directory
rename = os.rename
def rename_and_die(*paths):
    rename(*paths)
    os.kill(os.getpid(), signal.SIGKILL)
with atomic_directory(Path(sys.argv[1])) as partial:
    (partial / "new").write_text("new")
    os.rename = rename_and_die
"""


def die_between_the_renames(target: Path) -> None:
    """Replace `target` in another process that is killed when the old directory is away and the new one not there."""
    died = subprocess.run([sys.executable, "-c", DIE_BETWEEN_THE_RENAMES, str(target)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert not target.exists()


def test_what_was_set_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "capture"
    target.mkdir()
    (target / "old").write_text("old")
    die_between_the_renames(target)
    (set_aside,) = beside(target, REPLACED)
    assert not set_aside.name.endswith(PARTIAL)
    assert restore_replaced(target) == [set_aside]
    assert (target / "old").read_text() == "old"
    assert restore_replaced(target) == []


def test_what_was_set_aside_never_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "capture"
    target.mkdir()
    die_between_the_renames(target)
    target.mkdir()
    assert restore_replaced(target) == []
    assert len(beside(target, REPLACED)) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_when_writing_fails_the_old_file_stays_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "run.json"
    write_bytes(target, OLD)
    with pytest.raises(error):
        write_half_a_file(target, error)
    assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]


def test_when_filling_fails_the_old_directory_stays_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "capture"
    target.mkdir()
    (target / "a").write_bytes(OLD)
    with pytest.raises(KeyboardInterrupt):
        fill_half_a_directory(target, KeyboardInterrupt)
    assert list(tmp_path.rglob("*")) == [target, target / "a"]
    assert (target / "a").read_bytes() == OLD


def test_a_directory_replaces_the_one_that_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "capture"
    for name in ("before", "after"):
        with atomic_directory(target) as partial:
            (partial / name).write_text("x")
    assert [path.name for path in target.iterdir()] == ["after"]
    assert list(tmp_path.iterdir()) == [target]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "run.json", {"seed": 1})
    assert (tmp_path / "a" / "b" / "run.json").read_text() == '{\n  "seed": 1\n}\n'


def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    write_bytes(tmp_path / "file", b"")
    with atomic_directory(tmp_path / "folder"):
        pass
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder")}
    assert modes == {"file": 0o666 & ~umask, "folder": 0o777 & ~umask}


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", OLD)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(OLD).hexdigest()


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"a": math.inf}, '{"a": null, "non_finite": ["/a"]}'),
        ({"a": {"b": [1.0, -math.inf]}}, '{"a": {"b": [1.0, null]}, "non_finite": ["/a/b/1"]}'),
        ({"a": np.array([1.5, np.nan])}, '{"a": [1.5, null], "non_finite": ["/a/1"]}'),
        ({"a": np.float32(0.5), "n": np.int64(3)}, '{"a": 0.5, "n": 3}'),
        ({"path": Path("a/b"), 3: (1, "ä")}, '{"path": "a/b", "3": [1, "ä"]}'),
        ([math.nan], "[null]"),
        ({"a": True, "b": None}, '{"a": true, "b": null}'),
    ],
)
def test_a_document_becomes_strict_json(document: object, text: str) -> None:
    assert to_json(document) == text
    assert json.loads(text, parse_constant=pytest.fail) is not None


def test_what_json_cannot_say_is_an_error() -> None:
    with pytest.raises(TypeError, match="set"):
        to_json({"a": {1, 2}})
