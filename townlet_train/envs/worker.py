"""A process that steps some of a set of environments: `python -m townlet_train.envs.worker CONNECTION`.

It does one job after the other, each a set to build and step, until the line is cut. Ctrl-C and SIGTERM are left to the
process that started it, and it ends when that one does, even while an environment never returns.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from numpy.typing import NDArray

from townlet_train.envs.channel import Channel
from townlet_train.envs.episodes import Act, Report, run_episodes
from townlet_train.envs.gymnasium import GymnasiumVectorEnv
from townlet_train.envs.protocol import EnvSpec
from townlet_train.envs.shared import Shared
from townlet_train.errors import EnvironmentFailedError, TownletTrainError

GRACE = 1.0  # seconds to finish in when the line is cut
BEAT = 1.0  # seconds between two words of who is still playing

Request = tuple[str, Any] | None  # a method and its argument; None: step for the actions in shared memory
Answer = tuple[bool, Any] | None  # whether it succeeded, and what came of it; None: it did, and nothing did

AT_WORK: Answer = (True, "at work")  # comes before the answer to what takes long
BUILD: Request = ("build", None)  # nothing but what comes before every request
CLOSE: Request = ("close", None)  # the last of a job


class Job(NamedTuple):
    """What a worker is told first: what to build, and which part of the set it is."""

    make: bytes  # pickled: who cannot unpickle it can still say so
    spec: EnvSpec
    n_envs: int  # of the whole set
    share: tuple[int, int]  # its first environment, and one past its last


def main(connection: str) -> None:
    """A worker's life."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    channel = Channel(Connection(int(connection)))
    threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            _work(channel)


def _work(channel: Channel) -> None:
    """One job, from what to build to its close."""
    job, memory = channel.get(), channel.get_file()
    worker = _Worker(job, memory, heartbeat(channel))
    os.close(memory)
    request = BUILD
    channel.put(worker.answer(request))
    while request != CLOSE:
        request = channel.get()
        channel.put(worker.answer(request))


class _Worker:
    """The environments of one worker, once it was asked to build them."""

    def __init__(self, job: Job, memory: int, beat: Report) -> None:
        shared = Shared.map(memory, job.spec, job.n_envs)
        self._job, self._buffers = job, shared.buffers.rows(*job.share)
        self._actions, self._beat = shared.actions[slice(*job.share)], beat
        self._env: GymnasiumVectorEnv | None = None

    def answer(self, request: Request) -> Answer:
        """Do what is asked; an error is answered as its type and its sentence."""
        try:
            came = call(self._built(), request, self._actions, self._beat)
        except TownletTrainError as error:
            return False, (type(error), str(error))
        except Exception as error:
            asked, (first, last) = request[0] if request else "step", self._job.share
            sentence = (
                f"{self._job.spec.env_id}, environments {first} to {last - 1}, raised in {asked}: {error!r}"
            )
            return False, (EnvironmentFailedError, sentence)
        return None if came is None else (True, came)

    def _built(self) -> GymnasiumVectorEnv:
        if self._env is None:
            first, last = self._job.share
            make = pickle.loads(self._job.make)
            self._env = GymnasiumVectorEnv(make, last - first, buffers=self._buffers, first=first)
        return self._env


def call(
    env: GymnasiumVectorEnv, request: Request, actions: NDArray[Any], beat: Report = lambda done, total: None
) -> Any:
    """Do one thing to environments that are built; what lies in shared memory afterwards is no answer."""
    match request:
        case None:
            env.step(actions)
        case ("reset", seeds):
            env.reset(seeds)
        case ("pause", paused):
            env.pause(paused)
        case ("play", (pickled, seeds)):
            act = _unpickled(pickled)
            return None if act is None else run_episodes(act, env, seeds, beat)
        case ("set_state", state):
            env.set_state(state)
        case ("get_state", _):
            return env.get_state()
        case ("close", _):
            env.close()
    return None


def _unpickled(act: bytes) -> Act | None:
    """A policy's `act`; None where it needs what is not here."""
    try:
        found: Act = pickle.loads(act)
    except Exception:  # whatever the policy's own code raises
        return None
    return found


def heartbeat(channel: Channel) -> Report:
    """Hears at every tick of episodes, and lets who waits for their end know so now and then."""
    last = time.monotonic()

    def beat(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > BEAT and channel.has_room():
            channel.put(AT_WORK)
            last = now

    return beat


def _end_with(channel: Channel) -> None:
    """End this process a moment after the line was cut, unless it has ended by then."""
    channel.wait_for_end()
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
