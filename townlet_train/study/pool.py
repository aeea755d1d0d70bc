"""Some processes at a time, each with a job of its own; however the study ends, they and theirs end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from townlet_train.files import make_folder, write_bytes
from townlet_train.study.cells import Job

POLL_SEC, PATIENCE_SEC = 0.1, 10.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run_jobs(
    jobs: Sequence[Job],
    root: Path,
    n_at_once: int,
    *,
    on_done: Callable[[Job, float], None],
    watch: Callable[[], None],
) -> list[Job]:
    """Run all jobs, `n_at_once` at a time; returns those that failed, whose logs say why.

    A job's result lands as `root/cells/NAME.json`. `watch` is called all the time and may raise, which ends every
    process.
    """
    waiting, failed = list(jobs), []
    running: dict[subprocess.Popen[bytes], tuple[Job, float]] = {}
    with _ended(running):
        while waiting or running:
            while waiting and len(running) < n_at_once:
                job = waiting.pop(0)
                running[_started(job, root)] = job, time.monotonic()
            watch()
            for process in [process for process in running if process.poll() is not None]:
                job, began = running.pop(process)
                _let_go(process)
                if process.returncode == 0 and result_path(root, job.name).exists():
                    on_done(job, time.monotonic() - began)
                else:
                    failed.append(job)
            time.sleep(POLL_SEC)
    return failed


def result_path(root: Path, name: str) -> Path:
    """Where the result of a job is, once it is done."""
    return root / "cells" / f"{name}.json"


def log_path(root: Path, name: str) -> Path:
    """Where what a job said is."""
    return root / "logs" / f"{name}.log"


def _started(job: Job, root: Path) -> subprocess.Popen[bytes]:
    told, log = root / "jobs" / f"{job.name}.json", log_path(root, job.name)
    write_bytes(told, job.model_dump_json(indent=2).encode())
    make_folder(log.parent)
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "townlet_train.study.worker", told, result_path(root, job.name)],
            stdin=subprocess.PIPE,  # ends when this process does, and the other one with it
            stdout=stream,
            stderr=stream,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # a Ctrl-C is ours to pass on
        )


@contextmanager
def _ended(running: dict[subprocess.Popen[bytes], tuple[Job, float]]) -> Iterator[None]:
    """Whatever runs at the end is asked to stop, and is killed where it does not."""
    try:
        yield
    finally:
        try:
            for process in running:
                process.terminate()
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE_SEC)
        finally:  # also of a second Ctrl-C while waiting
            for process in running:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # it leads a session: what it started goes with it
                process.wait()
                _let_go(process)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close the end of the line that told an ended process of this one."""
    if process.stdin is not None:
        process.stdin.close()
