"""The processes that step environments, kept for the next set when one is closed: starting one takes a second."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Iterable
from multiprocessing import Pipe
from typing import NamedTuple

from townlet_train.envs.channel import Channel

TO_END = 5.0  # seconds for a process to end by itself


class Process(NamedTuple):
    """One process, and the line to it."""

    popen: subprocess.Popen[bytes]
    channel: Channel


class Processes:
    """Processes of this one; those that nobody uses wait until `close`, or until this object is gone.

    `step_sec` has what a step of an environment was found to take, by its id, so that it is measured once.
    """

    def __init__(self) -> None:
        self.step_sec: dict[str, float] = {}
        self._idle: list[Process] = []
        self._finalizer = weakref.finalize(self, end, self._idle)

    def take(self) -> Process:
        """One that waits for a job, started where none is idle."""
        while self._idle:
            process = self._idle.pop()
            if process.popen.poll() is None:
                return process
            process.channel.close()
        return _start()

    def start_ahead(self, n: int) -> None:
        """Have `n` idle, or on their way to be, while something else is done."""
        ahead = [self.take() for _ in range(n)]
        self.give_back(ahead)

    def give_back(self, processes: Iterable[Process]) -> None:
        """Keep some that have ended their job for the next."""
        self._idle.extend(processes)

    def close(self) -> None:
        """End those that are idle; another can be taken all the same."""
        end(self._idle)


def end(processes: list[Process]) -> None:
    """Cut the lines, on which processes end by themselves; kill who does not."""
    for process in processes:
        process.channel.close()
    for process in processes:
        try:
            process.popen.wait(TO_END)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
    processes.clear()


def _start() -> Process:
    """A process that waits for its first job. It imports nothing of the running script, which need not expect it."""
    ours, theirs = Pipe()
    with theirs:
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "townlet_train.envs.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            pass_fds=(theirs.fileno(),),
            process_group=0,  # what a terminal sends is for the process that collects
        )
    return Process(popen, Channel(ours))
