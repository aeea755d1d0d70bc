"""A log in several files: it rolls over when a file is full, and goes on after a crash without a gap or a double."""

from __future__ import annotations

from pathlib import Path

import pytest

from townlet_train.errors import DataError
from townlet_train.services.rolling import RollingLog, log_files, read_log, rewind


def log_of(folder: Path, n: int, max_entries: int | None = None) -> Path:
    path = folder / "ppo_log.jsonl"
    log = RollingLog(path, max_entries)
    for epoch in range(1, n + 1):
        log.append({"epoch": epoch})
    return path


def epochs(path: Path) -> list[int]:
    return [record["epoch"] for record in read_log(path)]


def names(path: Path) -> list[str]:
    return [file.name for file in log_files(path)]


def test_a_full_file_is_followed_by_the_next(tmp_path: Path) -> None:
    path = log_of(tmp_path, 5, max_entries=2)
    assert names(path) == ["ppo_log.jsonl", "ppo_log.1.jsonl", "ppo_log.2.jsonl"]
    assert [len(file.read_text().splitlines()) for file in log_files(path)] == [2, 2, 1]
    assert epochs(path) == [1, 2, 3, 4, 5]


def test_without_a_limit_there_is_one_file(tmp_path: Path) -> None:
    assert names(log_of(tmp_path, 5)) == ["ppo_log.jsonl"]


def test_what_goes_on_fills_the_last_file_first(tmp_path: Path) -> None:
    path = log_of(tmp_path, 3, max_entries=2)
    RollingLog(path, 2).append({"epoch": 4})
    RollingLog(path, 2).append({"epoch": 5})
    assert [len(file.read_text().splitlines()) for file in log_files(path)] == [2, 2, 1]


@pytest.mark.parametrize("kept", range(6))
def test_a_log_is_cut_back_to_what_is_known_wherever_that_ends(kept: int, tmp_path: Path) -> None:
    path = log_of(tmp_path, 5, max_entries=2)
    with path.with_name("ppo_log.2.jsonl").open("a") as stream:
        stream.write('{"epoch": 6, "loss')  # killed while writing
    rewind(path, path, lambda record: record["epoch"] <= kept)
    assert epochs(path) == list(range(1, kept + 1))
    assert len(names(path)) == -(-kept // 2)
    log = RollingLog(path, 2)
    for epoch in range(kept + 1, 7):
        log.append({"epoch": epoch})
    assert [len(file.read_text().splitlines()) for file in log_files(path)] == [2, 2, 2]
    assert epochs(path) == [1, 2, 3, 4, 5, 6]


def test_a_log_goes_on_in_another_directory(tmp_path: Path) -> None:
    path, elsewhere = log_of(tmp_path, 3, max_entries=2), tmp_path / "b/ppo_log.jsonl"
    rewind(path, elsewhere, lambda record: record["epoch"] <= 2)
    assert epochs(elsewhere) == [1, 2]
    assert epochs(path) == [1, 2, 3]


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = log_of(tmp_path, 3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "\0" * 9 + "\n" + lines[2])
    with pytest.raises(DataError, match=r"ppo_log\.jsonl, line 2 is not JSON; the file was damaged"):
        rewind(path, path, lambda record: True)
    assert path.read_text().endswith(lines[2])
