"""A run directory: one run at a time, nothing lost, nothing foreign deleted, and its end written down."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from townlet_train.data.checkpoint import sorted_checkpoints
from townlet_train.errors import Interrupted, StorageError, UsageError
from townlet_train.services.experiment import recording_interval
from townlet_train.services.run_files import put_back, set_aside
from townlet_train.services.runs import check_run_dir, default_run_dir, open_run, recover_run_dir

DETAILS = {"config": {"env": "town"}, "params": {}}


def opened(path: Path, *, overwrite: bool = False) -> Any:
    return open_run(path, strategy="bc", seed=3, details=DETAILS, overwrite=overwrite)


def described(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / "run.json").read_text())
    return document


def test_a_run_says_it_is_running_and_then_that_it_finished(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        assert described(run.path)["status"] == "running"
    document = described(tmp_path / "run")
    assert (document["status"], document["id"], document["seed"]) == ("finished", "bc_seed3", 3)
    assert document["started_at"] <= document["ended_at"]
    assert document["versions"]["numpy"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("no"), "failed", "no"),
        (Interrupted("stop"), "interrupted", "stop"),
        (KeyboardInterrupt(), "interrupted", "Interrupted at once."),
    ],
)
def test_a_run_that_breaks_says_why(error: BaseException, status: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), opened(tmp_path):
        raise error
    document = described(tmp_path)
    assert document["status"] == status
    assert document["error"] == {"type": type(error).__name__, "message": said}


def test_lines_are_on_disk_as_soon_as_they_are_recorded(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.record({"epoch": 1, "loss": float("nan")})
        line = json.loads((tmp_path / "metrics.jsonl").read_text())
        assert line["loss"] is None
        assert line["non_finite"] == ["/loss"]
        assert line["timestamp"].endswith("Z")
        assert run.lines() == [line]


def test_what_is_logged_meanwhile_is_in_the_runs_log(tmp_path: Path) -> None:
    logger = logging.getLogger("townlet_train.somewhere")
    with opened(tmp_path):
        logger.debug("within")
    logger.warning("after")
    (log,) = (tmp_path / "logs").glob("training_*.log")
    assert "DEBUG townlet_train.somewhere within" in log.read_text()
    assert "after" not in log.read_text()


def hold(path: Path, ready: Any, release: Any) -> None:
    with opened(path):
        ready.set()
        release.wait(30)


def test_two_runs_never_share_a_directory(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path / "run", ready, release))
    other.start()
    try:
        assert ready.wait(30)
        before = (tmp_path / "run/run.json").read_bytes()
        with (
            pytest.raises(UsageError, match=rf"going on in .*/run \(pid {other.pid}, since 20.*Z\). Wait"),
            opened(tmp_path / "run", overwrite=True),
        ):
            pass
        with pytest.raises(UsageError, match="A run is going on"):
            recover_run_dir(tmp_path / "run")
        assert (tmp_path / "run/run.json").read_bytes() == before
    finally:
        release.set()
        other.join()
    assert described(tmp_path / "run")["status"] == "finished"


def test_an_earlier_run_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.record({"epoch": 1})
        (tmp_path / "checkpoint_7.zip").write_text("old")
        (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"already holds a run \(finished\)\. Pass --overwrite") as refusal,
        opened(tmp_path),
    ):
        pass
    assert refusal.value.exit_code == 3
    assert (tmp_path / "checkpoint_7.zip").exists()
    with opened(tmp_path, overwrite=True) as run:
        assert run.lines() == []
        assert not (tmp_path / "checkpoint_7.zip").exists()
        assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_replaced_run_comes_back_when_the_new_one_saves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.record({"epoch": 1})
        (tmp_path / "bc_seed3_model.zip").write_text("old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path, [], overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert len(list((tmp_path / "logs").iterdir())) >= 1
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path, ["checkpoint_5.zip"], overwrite=True)
    assert not (tmp_path / "bc_seed3_model.zip").exists()
    assert described(tmp_path)["status"] == "failed"


def fail(path: Path, saved: list[str], *, overwrite: bool = False) -> None:
    with opened(path, overwrite=overwrite):
        for name in saved:
            (path / name).touch()
        raise ZeroDivisionError


def test_a_run_that_failed_with_nothing_saved_is_in_nobodys_way(tmp_path: Path) -> None:
    for saved in ([], ["checkpoint_3.zip"]):
        with pytest.raises(ZeroDivisionError):
            fail(tmp_path, saved)
    with pytest.raises(UsageError, match=r"already holds a run \(failed\)"), opened(tmp_path):
        pass


def test_a_directory_of_other_things_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(UsageError, match="is not empty and holds no run"), opened(tmp_path, overwrite=True):
        pass
    with pytest.raises(UsageError, match="is a file"):
        check_run_dir(tmp_path / "thesis.tex", overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("content", [b"{bad", b"[]", b"{}", b"\xff", b"null", b'"text"'])
def test_a_damaged_run_document_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"run\.json is damaged") as refusal:
            check_run_dir(tmp_path, overwrite=overwrite)
        assert str(tmp_path) in str(refusal.value)
        assert refusal.value.exit_code == 3


def test_a_directory_that_lost_its_run_document_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_300.zip").touch()
    with pytest.raises(UsageError, match=r"--resume-from .*/checkpoint_300.zip goes on there"):
        check_run_dir(tmp_path, overwrite=True)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(UsageError, match=r"lost its run.json. Go on with --resume-from latest"):
        check_run_dir(tmp_path, overwrite=True)


def test_runs_lie_where_their_strategy_and_seed_say() -> None:
    assert default_run_dir("bc", 42) == Path("results/experiments/bc_seed42")


def test_checkpoints_are_listed_by_step(tmp_path: Path) -> None:
    for name in ("checkpoint_1000.zip", "checkpoint_200.zip", "checkpoint_best.zip"):
        (tmp_path / name).touch()
    assert [path.name for path in sorted_checkpoints(tmp_path)] == [
        "checkpoint_200.zip",
        "checkpoint_1000.zip",
    ]


def test_a_recording_interval_is_only_claimed_when_it_is_one() -> None:
    assert recording_interval([{"timestep": 10}, {"timestep": 20}]) == 10
    assert recording_interval([{"timestep": 10}, {"timestep": 30}]) is None
    assert recording_interval([{"epoch": 1}]) is None


def replaceable(path: Path) -> dict[str, str]:
    """A finished run with a checkpoint; what its files hold."""
    with opened(path) as run:
        run.record({"epoch": 1})
        (path / "checkpoint_5.zip").write_text("five")
        (path / "bc_seed3_model.zip").write_text("model")
    return contents(path)


def contents(path: Path) -> dict[str, str]:
    return {
        str(found.relative_to(path)): found.read_text()
        for found in path.rglob("*")
        if found.is_file() and found.name != ".lock" and found.suffix != ".log"
    }


class Killed(BaseException):
    """Stands for a signal that leaves a process no time for anything."""


@pytest.mark.parametrize("moves", range(5))
@pytest.mark.parametrize("again", [False, True], ids=["set aside", "and put back"])
def test_a_run_that_was_to_be_replaced_comes_back_whenever_the_process_was_killed(
    moves: int, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = replaceable(tmp_path)
    for name in ("rename", "replace") if again else ("rename",):
        with monkeypatch.context() as patched:
            killed_after(patched, name, moves)
            with suppress(Killed):
                if name == "rename":
                    set_aside(tmp_path)
                else:
                    put_back(tmp_path)
    recover_run_dir(tmp_path)
    assert contents(tmp_path) == before


def killed_after(patched: pytest.MonkeyPatch, name: str, moves: int) -> None:
    """Let a process die when it has moved so many files."""
    move, done = getattr(os, name), iter(range(100))

    def dying(*places: Any) -> None:
        if next(done) == moves:
            raise Killed
        move(*places)

    patched.setattr(os, name, dying)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system here that the kernel makes up")
def test_a_place_where_no_directory_can_be_made_is_told_as_such() -> None:
    with pytest.raises(StorageError, match="/proc/x/run cannot be written"), opened(Path("/proc/x/run")):
        pass


@pytest.mark.parametrize("left", [".lock", ".run.json.abc.partial"])
def test_what_was_killed_before_it_was_a_run_is_in_nobodys_way(left: str, tmp_path: Path) -> None:
    (tmp_path / left).touch()
    with opened(tmp_path):
        pass
    assert described(tmp_path)["status"] == "finished"
    assert not list(tmp_path.glob("*.partial"))
