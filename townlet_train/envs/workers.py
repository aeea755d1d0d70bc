"""Gymnasium environments in several processes, for where one step is dear.

The process that collects steps the first environments itself, each worker some of the others at the same time. All
write into one shared piece of memory; a step sends each worker a word and waits for a word back. Whole episodes of a
policy that can travel are shared out instead: each process plays some of the seeds, and nobody waits before the end.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.buffers import check_actions, check_seeds, check_size
from townlet_train.envs.channel import Channel
from townlet_train.envs.episodes import Act, Episodes, InBatch, Report, join, run_episodes
from townlet_train.envs.gymnasium import GymnasiumEnv, GymnasiumVectorEnv
from townlet_train.envs.journal import State, join_states, split_state
from townlet_train.envs.processes import TO_END, Process, Processes, end
from townlet_train.envs.protocol import Actions, Observation, Step
from townlet_train.envs.shared import Shared, open_memory
from townlet_train.envs.worker import AT_WORK, Answer, Job, Request, call
from townlet_train.errors import EnvironmentFailedError, UsageError

logger = logging.getLogger(__name__)

Make = Callable[[], GymnasiumEnv]

PATIENCE = 60.0  # seconds a worker may take for a step
SLOWER = {"build": 10, "set_state": 10}  # how many times as long other requests may take


class WorkerVectorEnv:
    """Environments of one id stepped by `n_workers` processes, this one included; implements `VectorEnv`.

    The same numbers as `GymnasiumVectorEnv`, however many. `make` must be importable from a new process: a function of
    a module that is not the running script, or a partial of one. A worker that does not answer a step for `patience`
    seconds (other requests: `SLOWER` times as long) is killed; nobody watches the environments of this process.
    Workers are taken from `processes`, and given back there by `close`; without it they are this set's own.

    Raises:
        EnvironmentCreationError: as `GymnasiumVectorEnv`.
        EnvironmentFailedError: from any call, when an environment raised, or a worker died or hung.
    """

    n_agents = 1

    def __init__(
        self,
        make: Make,
        n_envs: int,
        n_workers: int,
        *,
        patience: float = PATIENCE,
        processes: Processes | None = None,
    ) -> None:
        if not 1 <= n_workers <= n_envs:
            raise UsageError(f"{n_envs} environments take 1 to {n_envs} workers, {n_workers} were asked for.")
        travelling, probe = pickled(make), GymnasiumVectorEnv(make, 1)
        probe.close()
        self.spec, self.n_envs, self._patience = probe.spec, n_envs, patience
        bounds = np.linspace(0, n_envs, n_workers + 1).astype(int).tolist()
        (_, n_own), *others = self._shares = [*pairwise(bounds)]
        self._workers: list[_Worker] = []
        self._kept, source = processes, processes or Processes()
        self._finalizer = weakref.finalize(self, _end, self._workers)
        memory = open_memory()
        try:
            shared = Shared.map(memory, self.spec, n_envs)
            self._actions, self._step = shared.actions, shared.buffers.step()
            for share in others:
                worker = _Worker(source.take(), share)
                self._workers.append(worker)
                self._tell(worker, Job(travelling, self.spec, n_envs, share), memory)
            self._own_actions = self._actions[:n_own]
            self._own = GymnasiumVectorEnv(make, n_own, buffers=shared.buffers.rows(0, n_own))
            for worker in self._workers:
                _unpack(self._hear(worker, "build"))
        except BaseException:
            self._finalizer()
            raise
        finally:
            os.close(memory)

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start an episode per environment, of its own seed. (n_envs,)"""
        check_seeds(seeds, self.n_envs)
        self._ask("reset", [seeds[slice(*share)] for share in self._shares])
        return self._step.observation

    def step(self, actions: Actions) -> Step:
        """One tick of every environment for `actions` (n_envs, 1, *spec.action_shape)."""
        check_actions(actions, self._actions.shape)
        self._actions[:] = actions
        self._ask("step")
        return self._step

    def pause(self, envs: NDArray[np.bool_]) -> None:
        """Do not step these (n_envs,) before the next reset; they go on showing what they showed, without reward."""
        self._ask("pause", [envs[slice(*share)] for share in self._shares])

    def share_episodes(self, act: Act, seeds: Sequence[int], report: Report) -> Episodes | None:
        """Each process plays its part of `seeds`; None where `act` cannot travel, or some process would have no seed.

        `report` hears of the episodes of this process as if all went on like them. What it raises, or `act` here, ends
        the workers.

        Raises:
            EnvironmentFailedError: an environment raised, `act` did in a worker, or a worker died or hung.
        """
        acts = [InBatch(act, self.n_envs, first) for first, _ in self._shares]
        rows = np.arange(len(seeds)) % self.n_envs
        parts = [np.flatnonzero((first <= rows) & (rows < past)) for first, past in self._shares]
        if not all(len(part) for part in parts):
            return None
        try:
            travelling = [pickled(theirs, "The policy") for theirs in acts[1:]]
        except UsageError as error:
            logger.debug("Episodes of %s are not shared out. %s", self.spec.env_id, error)
            return None
        own, *others = ([seeds[index] for index in part.tolist()] for part in parts)

        def play() -> Episodes:
            return run_episodes(acts[0], self._own, own, tell)

        def tell(done: int, total: int) -> None:
            report(done * len(seeds) // total, len(seeds))

        requests: list[Request] = [("play", job) for job in zip(travelling, others, strict=True)]
        played = self._together("play", requests, play, waiting=partial(tell, 1, 1))
        if any(part is None for part in played):
            logger.debug("Episodes of %s are not shared out. No worker knows the policy.", self.spec.env_id)
            return None
        return join(played, np.argsort(np.concatenate(parts)))

    def get_state(self) -> State:
        """As `GymnasiumVectorEnv.get_state`, and interchangeable with it."""
        return join_states(self._ask("get_state"))

    def set_state(self, state: State) -> Observation:
        """Replay to where `get_state` was called; returns the observation of that moment.

        Raises:
            InexactStateError: the replay arrived somewhere else.
            DataError: the state is of another number of environments.
        """
        check_size(state, self.n_envs)
        each = list(split_state(state))
        self._ask("set_state", [join_states(each[slice(*share)]) for share in self._shares])
        return self._step.observation

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Gymnasium environments report none."""
        return {}

    def close(self) -> None:
        """End the set, which cannot be used any more; the workers end with it, or close theirs and are kept."""
        try:
            if self._kept is None or not self._finalizer.alive:
                self._own.close()
                return
            with suppress(Exception):  # who died, or holds an environment that does not close, is not kept
                self._ask("close")
                self._kept.give_back(worker.process for worker in self._workers)
                self._workers.clear()
        finally:
            self._finalizer()

    def _ask(self, method: str, arguments: Sequence[Any] = ()) -> list[Any]:
        """What all environments answer, process by process, the own ones first; they work at the same time."""
        requests: list[Request] = [None] * len(self._shares)
        if method != "step":
            requests = [(method, argument) for argument in arguments or requests]
        return self._together(method, requests[1:], partial(call, self._own, requests[0], self._own_actions))

    def _together(
        self,
        method: str,
        requests: Sequence[Request],
        do_own: Callable[[], Any],
        waiting: Callable[[], None] | None = None,
    ) -> list[Any]:
        """What `do_own` returns, then what each worker answers to its request.

        Where the answers may take long, `waiting` is called now and then and may raise to stop waiting.
        """
        if not self._finalizer.alive:
            raise EnvironmentFailedError(f"The workers of {self.spec.env_id} have ended. Build it anew.")
        failure: Exception | None = None
        own: Any = None
        try:
            for worker, request in zip(self._workers, requests, strict=True):
                self._tell(worker, request)
            try:
                own = do_own()
            except Exception as error:
                if waiting:
                    raise
                failure = error  # raised when the others have answered, so that nothing is left on the line
            answers = [self._hear(worker, method, waiting) for worker in self._workers]
        except BaseException:
            self._finalizer()  # interrupted between question and answer, nobody knows any more who answers what
            raise
        if failure is not None:
            raise failure
        return [own, *(_unpack(answer) for answer in answers)]

    def _tell(self, worker: _Worker, request: Request | Job, memory: int | None = None) -> None:
        """Send a worker a request, or a job with the descriptor of the memory it shares."""
        try:
            worker.channel.put(request)
            if memory is not None:
                worker.channel.put_file(memory)
        except OSError as error:
            raise EnvironmentFailedError(self._describe_death(worker)) from error

    def _hear(self, worker: _Worker, method: str, waiting: Callable[[], None] | None = None) -> Answer:
        """A worker's answer; `EnvironmentFailedError` when it died, or is killed for taking too long."""
        patience = self._patience * SLOWER.get(method, 1)
        try:
            while (answer := worker.channel.get(patience)) == AT_WORK:
                if waiting:
                    waiting()
        except TimeoutError as error:
            worker.popen.kill()
            raise EnvironmentFailedError(
                f"The worker with {self._name(worker)} did not answer {method!r} within {patience:g} seconds, so "
                f"it was killed. One of its environments hangs, or needs more patience."
            ) from error
        except (EOFError, OSError) as error:
            raise EnvironmentFailedError(self._describe_death(worker)) from error
        return cast("Answer", answer)

    def _describe_death(self, worker: _Worker) -> str:
        with suppress(subprocess.TimeoutExpired):
            worker.popen.wait(TO_END)
        return (
            f"The worker with {self._name(worker)} died with exit code {worker.popen.returncode}. "
            f"A negative code is the signal that ended it; -9 is often a lack of memory."
        )

    def _name(self, worker: _Worker) -> str:
        first, last = worker.share
        return f"environments {first} to {last - 1} of {self.spec.env_id}"


def pickled(function: Callable[..., Any], what: str = "The environment") -> bytes:
    """What a process calls that does not import the running script; `UsageError` when it only exists there."""
    try:
        found = pickle.dumps(function)
    except Exception as error:  # pickling runs code of what is pickled
        raise UsageError(f"{what} cannot be handed to a worker: {error}.") from error
    if b"__main__" in found:
        raise UsageError(
            f"{what} is defined in the running script, which workers do not import. "
            "Define it in a module of its own."
        )
    return found


class _Worker(NamedTuple):
    process: Process
    share: tuple[int, int]  # its first environment, and one past its last

    @property
    def channel(self) -> Channel:
        return self.process.channel

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        return self.process.popen


def _unpack(answer: Answer) -> Any:
    """What came of a request; raises what was raised in the worker."""
    if answer is None:
        return None
    succeeded, came = answer
    if succeeded:
        return came
    kind, sentence = came
    raise kind.__new__(kind, sentence)  # without its constructor, which may ask for more than a sentence


def _end(workers: list[_Worker]) -> None:
    end([worker.process for worker in workers])
    workers.clear()
