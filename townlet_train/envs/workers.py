"""Gymnasium environments in other processes, several in each, for where one step is dear.

All workers write into one shared piece of memory; a step sends each of them a word and waits for a word back.
Workers leave Ctrl-C and SIGTERM to the process that started them, and end when it does.
"""

from __future__ import annotations

import multiprocessing
import signal
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.buffers import Buffers, check_actions, check_seeds, check_size
from townlet_train.envs.gymnasium import GymnasiumEnv, GymnasiumVectorEnv
from townlet_train.envs.journal import State, join_states, split_state
from townlet_train.envs.protocol import Actions, EnvSpec, Observation, Step
from townlet_train.errors import EnvironmentFailedError, TownletTrainError, UsageError

Make = Callable[[], GymnasiumEnv]

LINE = 64  # bytes of a cache line; no two arrays share one
PATIENCE = 5.0  # seconds for a worker to end by itself


class WorkerVectorEnv:
    """Environments of one id spread over `n_workers` processes; implements `VectorEnv` with one agent each.

    The same numbers as `GymnasiumVectorEnv`, however many workers. `make` must be importable from a new process: a
    function of a module, or a partial of one.

    Raises:
        EnvironmentCreationError: as `GymnasiumVectorEnv`.
        EnvironmentFailedError: from any call, when an environment raised or a worker died.
    """

    n_agents = 1

    def __init__(self, make: Make, n_envs: int, n_workers: int) -> None:
        if not 1 <= n_workers <= n_envs:
            raise UsageError(f"{n_envs} environments take 1 to {n_envs} workers, {n_workers} were asked for.")
        probe = GymnasiumVectorEnv(make, 1)
        probe.close()
        self.spec, self.n_envs = probe.spec, n_envs
        context = multiprocessing.get_context("spawn")
        memory = context.RawArray("b", _Layout.size(self.spec, n_envs))
        layout = _Layout.of(memory, self.spec, n_envs)
        self._actions, self._step = layout.actions, layout.buffers.step()
        bounds = np.linspace(0, n_envs, n_workers + 1).astype(int).tolist()
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end, self._workers)
        for share in pairwise(bounds):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, make, memory, self.spec, n_envs, share), daemon=True
            )
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours, share))
        self._call("build", [None] * n_workers)

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start an episode per environment, of its own seed. (n_envs,)"""
        check_seeds(seeds, self.n_envs)
        self._call("reset", [seeds[slice(*worker.share)] for worker in self._workers])
        return self._step.observation

    def step(self, actions: Actions) -> Step:
        """One tick of every environment for `actions` (n_envs, 1, *spec.action_shape)."""
        check_actions(actions, self._actions.shape)
        self._actions[:] = actions
        self._call("step", [None] * len(self._workers))
        return self._step

    def pause(self, envs: NDArray[np.bool_]) -> None:
        """Do not step these (n_envs,) before the next reset; they go on showing what they showed, without reward."""
        self._call("pause", [envs[slice(*worker.share)] for worker in self._workers])

    def get_state(self) -> State:
        """As `GymnasiumVectorEnv.get_state`, and interchangeable with it."""
        return join_states(self._call("get_state", [None] * len(self._workers)))

    def set_state(self, state: State) -> Observation:
        """Replay to where `get_state` was called; returns the observation of that moment.

        Raises:
            InexactStateError: the replay arrived somewhere else.
            DataError: the state is of another number of environments.
        """
        check_size(state, self.n_envs)
        each = list(split_state(state))
        self._call("set_state", [join_states(each[slice(*worker.share)]) for worker in self._workers])
        return self._step.observation

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Gymnasium environments report none."""
        return {}

    def close(self) -> None:
        """End the workers; the environment cannot be used any more."""
        self._finalizer()

    def _call(self, method: str, arguments: Iterable[Any]) -> list[Any]:
        """The answers of one method of every worker's environments, which run at the same time."""
        if not self._workers:
            raise EnvironmentFailedError(f"The workers of {self.spec.env_id} have ended. Build it anew.")
        asked = self._workers[0]
        try:
            for asked, argument in zip(self._workers, arguments, strict=True):
                asked.pipe.send((method, argument))
            answers: list[tuple[bool, Any]] = []
            for asked in self._workers:
                answers.append(asked.pipe.recv())
        except (EOFError, OSError) as error:
            sentence = self._describe_death(asked)
            self.close()
            raise EnvironmentFailedError(sentence) from error
        except BaseException:
            self.close()  # interrupted between question and answer, nobody knows any more who answers what
            raise
        for succeeded, answer in answers:
            if not succeeded:
                raise answer
        return [answer for _, answer in answers]

    def _describe_death(self, worker: _Worker) -> str:
        worker.process.join(PATIENCE)
        first, last = worker.share
        return (
            f"The worker with environments {first} to {last - 1} of {self.spec.env_id} died with exit code "
            f"{worker.process.exitcode}. A negative code is the signal that ended it; -9 is often a lack of memory."
        )


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection
    share: tuple[int, int]  # its first environment, and one past its last


@dataclass(frozen=True)
class _Layout:
    """Where in the shared memory the arrays of all environments lie."""

    buffers: Buffers
    actions: NDArray[Any]

    @classmethod
    def of(cls, memory: Any, spec: EnvSpec, n_envs: int) -> _Layout:
        """The arrays, as views of raw bytes."""
        end = 0

        def zeros(shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
            nonlocal end
            count, start = int(np.prod(shape)), end
            end += -(-count * np.dtype(dtype).itemsize // LINE) * LINE
            return np.frombuffer(memory, dtype, count, start).reshape(shape)

        buffers = Buffers.allocate(n_envs, spec, zeros)
        return cls(
            buffers, zeros((n_envs, 1, *spec.action_shape), np.float32 if spec.action_low else np.int64)
        )

    @staticmethod
    def size(spec: EnvSpec, n_envs: int) -> int:
        """Bytes that suffice."""
        arrays: list[NDArray[Any]] = [*vars(Buffers.allocate(n_envs, spec)).values()]
        actions = 8 * n_envs * max(1, len(spec.action_low))
        return sum(array.nbytes + LINE for array in arrays) + actions + LINE


def _work(
    pipe: Connection, make: Make, memory: Any, spec: EnvSpec, n_envs: int, share: tuple[int, int]
) -> None:
    """A worker's life: answer what comes through the pipe until it is closed."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    layout, env = _Layout.of(memory, spec, n_envs), None
    actions, buffers = layout.actions[slice(*share)], layout.buffers.rows(*share)
    with suppress(EOFError, OSError):
        while True:
            method, argument = pipe.recv()
            try:
                if env is None:
                    env = GymnasiumVectorEnv(make, share[1] - share[0], buffers=buffers, first=share[0])
                answer = _answer(env, method, argument, actions)
            except TownletTrainError as error:
                pipe.send((False, error))
            except Exception as error:
                sentence = (
                    f"{spec.env_id}, environments {share[0]} to {share[1] - 1}, raised in {method}: {error!r}"
                )
                pipe.send((False, EnvironmentFailedError(sentence)))
            else:
                pipe.send((True, answer))


def _answer(env: GymnasiumVectorEnv, method: str, argument: Any, actions: NDArray[Any]) -> Any:
    """What a method returns, but for what lies in the shared memory already."""
    match method:
        case "step":
            env.step(actions)
        case "reset":
            env.reset(argument)
        case "pause":
            env.pause(argument)
        case "set_state":
            env.set_state(argument)
        case "get_state":
            return env.get_state()
    return None


def _end(workers: list[_Worker]) -> None:
    """Close the pipes, on which workers end by themselves; kill who does not."""
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.process.join(PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
    workers.clear()
