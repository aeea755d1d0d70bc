"""Environments in other processes: the same numbers, and an end in words whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.conformance import KnownValues, right, temporal_differences
from tests.strange_envs import (
    Closing,
    Counter,
    Dying,
    Hanging,
    HangingFromTheStart,
    Hidden,
    Raising,
    RaisingElsewhere,
    Slow,
    Sticking,
    Unbuildable,
)
from townlet_train.config import RunConfig
from townlet_train.envs.build import build_env
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.processes import Processes
from townlet_train.envs.workers import WorkerVectorEnv
from townlet_train.errors import EnvironmentFailedError, InexactStateError, TownletTrainError, UsageError
from townlet_train.services.scoring import EvaluationService

NOTHING = np.zeros((2, 1), np.int64)


@contextmanager
def workers(
    make: Any, n_envs: int = 2, n_workers: int = 2, patience: float = 60.0
) -> Iterator[WorkerVectorEnv]:
    env = WorkerVectorEnv(make, n_envs, n_workers, patience=patience)
    try:
        yield env
    finally:
        env.close()


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@pytest.mark.parametrize("env_id", ["LunarLander-v3", "Pendulum-v1", "Taxi-v4"])
def test_workers_give_the_numbers_of_one_process(env_id: str, n_workers: int) -> None:
    make, rng = partial(make_gymnasium, env_id), np.random.default_rng(0)
    plain, seeds = GymnasiumVectorEnv(make, 3), np.array([4, 5, 6])
    with workers(make, 3, n_workers) as env:
        assert env.spec == plain.spec
        np.testing.assert_array_equal(env.reset(seeds).features, plain.reset(seeds).features)
        shape = (3, 1, *env.spec.action_shape)
        for _ in range(150):
            actions = rng.normal(size=shape).astype(np.float32) if shape[2:] else rng.integers(0, 4, shape)
            mine, theirs = env.step(actions), plain.step(actions)
            np.testing.assert_array_equal(mine.observation.features, theirs.observation.features)
            np.testing.assert_array_equal(mine.observation.action_mask, theirs.observation.action_mask)
            for part, other in zip(mine[1:4], theirs[1:4], strict=True):
                np.testing.assert_array_equal(part, other)
            final, other_final = mine.final_observation.features, theirs.final_observation.features
            np.testing.assert_array_equal(final, other_final)


def test_workers_and_one_process_continue_each_others_state() -> None:
    make, rng = partial(make_gymnasium, "LunarLander-v3"), np.random.default_rng(0)
    plain = GymnasiumVectorEnv(make, 3)
    plain.reset(np.array([1, 2, 3]))
    for _ in range(130):
        plain.step(rng.integers(0, 4, (3, 1)))
    state = plain.get_state()
    with workers(make, 3, 2) as env:
        env.set_state(state)
        again = env.get_state()
        assert all((again[name] == state[name]).all() for name in state)
        actions = rng.integers(0, 4, (3, 1))
        np.testing.assert_array_equal(
            env.step(actions).observation.features, plain.step(actions).observation.features
        )


def test_workers_end_episodes_rightly() -> None:
    with workers(KnownValues, 5, 2) as env:
        np.testing.assert_allclose(temporal_differences(env, right), 0, atol=1e-4)


def test_the_config_of_a_run_reaches_the_workers() -> None:
    config, rng = RunConfig(env="LunarLander-v3"), np.random.default_rng(0)
    env, plain = build_env(config, 4, n_workers=2), build_env(config, 4)
    assert isinstance(env, WorkerVectorEnv)
    assert env.spec == plain.spec
    np.testing.assert_array_equal(env.reset(np.arange(4)).features, plain.reset(np.arange(4)).features)
    for _ in range(120):
        actions = rng.integers(0, 4, (4, 1))
        mine, theirs = env.step(actions), plain.step(actions)
        np.testing.assert_array_equal(mine.observation.features, theirs.observation.features)
    env.close()


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (
            Raising,
            EnvironmentFailedError,
            "Raising, environment 0, raised ZeroDivisionError on action 0: out of",
        ),
        (
            RaisingElsewhere,
            EnvironmentFailedError,
            "RaisingElsewhere, environment 1, raised ZeroDivisionError on action 0: out of",
        ),
        (Dying, EnvironmentFailedError, "environments 1 to 1 of Dying died with exit code 3"),
        (
            Unbuildable,
            EnvironmentFailedError,
            "environments 1 to 1, raised in build: RuntimeError.*no licence",
        ),
        (Hidden, InexactStateError, "observation 0 is"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told_in_words(
    make: Any, error: type[TownletTrainError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        play(make)


def play(make: Any) -> None:
    """Three steps in workers, and back to their end."""
    with workers(make) as env:
        env.reset(np.array([1, 2]))
        for _ in range(3):
            env.step(NOTHING)
        env.set_state(env.get_state())


def test_a_killed_worker_is_reported_and_the_others_ended() -> None:
    with workers(KnownValues, 3, 3) as env:
        env.reset(np.array([1, 2, 3]))
        victim, survivor = (worker.popen for worker in env._workers)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        with pytest.raises(EnvironmentFailedError, match=r"died with exit code -9.*lack of memory"):
            env.step(np.zeros((3, 1), np.int64))
        assert survivor.poll() is not None
        with pytest.raises(EnvironmentFailedError, match=r"have ended\. Build it anew"):
            env.step(np.zeros((3, 1), np.int64))


def test_a_hung_worker_is_named_and_killed() -> None:
    with workers(Hanging, 5, 3, patience=2) as env:
        processes = [worker.popen for worker in env._workers]
        env.reset(np.arange(5))
        idle = np.zeros((5, 1), np.int64)
        env.step(idle)
        env.step(idle)
        sentence = (
            r"with environments 1 to 2 of Hanging did not answer 'step' within 2 seconds, so it was killed"
        )
        with pytest.raises(EnvironmentFailedError, match=sentence):
            env.step(idle)
        assert processes[0].returncode == -signal.SIGKILL
        assert all(process.poll() is not None for process in processes)


def test_a_worker_that_never_gets_built_is_named_and_killed_after_more_patience() -> None:
    with pytest.raises(EnvironmentFailedError, match=r"did not answer 'build' within 1 seconds"):
        WorkerVectorEnv(HangingFromTheStart, 2, 2, patience=0.1)


def test_an_environment_of_the_running_script_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Counter", Counter, raising=False)
    with pytest.raises(UsageError, match="in the running script, which workers do not import"):
        WorkerVectorEnv(Counter, 2, 2)


def test_what_cannot_be_handed_over_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="cannot be handed to a worker"):
        WorkerVectorEnv(lambda: KnownValues(), 2, 2)


def test_an_environment_registered_by_the_running_program_reaches_the_workers() -> None:
    gymnasium.register("Known-v0", entry_point=KnownValues)
    try:
        env = build_env(RunConfig(env="Known-v0"), 2, n_workers=2)
        assert env.reset(np.array([1, 2])).features.shape == (2, 1, 1)
        assert isinstance(env, WorkerVectorEnv)
        env.close()
    finally:
        del gymnasium.registry["Known-v0"]


@pytest.mark.parametrize(
    ("n_envs", "n_workers"), [(2, 0), (2, 3)], ids=["no worker", "more workers than environments"]
)
def test_a_wrong_number_of_workers_is_refused(n_envs: int, n_workers: int) -> None:
    with pytest.raises(UsageError, match=f"2 environments take 1 to 2 workers, {n_workers} were"):
        WorkerVectorEnv(KnownValues, n_envs, n_workers)


def test_a_step_before_the_reset_or_of_another_shape_is_refused() -> None:
    with workers(KnownValues) as env:
        with pytest.raises(UsageError, match="used before it was reset"):
            env.step(NOTHING)
        with pytest.raises(UsageError, match=r"shape \(1, 1\), expected \(2, 1\)"):
            env.step(NOTHING[:1])


def test_an_environment_nobody_holds_any_more_ends_its_workers() -> None:
    env = WorkerVectorEnv(KnownValues, 2, 2)
    processes = [worker.popen for worker in env._workers]
    del env
    assert all(process.poll() is not None for process in processes)


def played(env: WorkerVectorEnv) -> list[np.ndarray[Any, Any]]:
    """What two environments of a set show in 30 steps."""
    shown = [env.reset(np.array([4, 5])).features.copy()]
    return [*shown, *(env.step(NOTHING).observation.features.copy() for _ in range(30))]


def test_the_processes_of_one_set_step_the_next_and_its_numbers_are_its_own() -> None:
    with closing(Processes()) as processes:
        with closing(WorkerVectorEnv(KnownValues, 3, 3, processes=processes)) as first:
            pids = {worker.popen.pid for worker in first._workers}
        make = partial(make_gymnasium, "LunarLander-v3")
        with closing(WorkerVectorEnv(make, 2, 2, processes=processes)) as kept, workers(make) as own:
            assert {worker.popen.pid for worker in kept._workers} < pids
            np.testing.assert_array_equal(played(kept), played(own))


@pytest.mark.parametrize("kept", [False, True])
def test_closing_a_set_closes_the_environments_of_this_process(kept: bool) -> None:
    before = Closing.opened
    with closing(Processes()) as processes:
        env = WorkerVectorEnv(Closing, 3, 2, processes=processes if kept else None)
        assert Closing.opened == before + 1
        env.close()
        assert Closing.opened == before
        broken = WorkerVectorEnv(Closing, 3, 2, processes=processes if kept else None)
        broken.reset(np.arange(3))
        broken._workers[0].popen.kill()
        with pytest.raises(EnvironmentFailedError):
            broken.step(np.zeros((3, 1), np.int64))
        broken.close()
        assert Closing.opened == before


def test_what_evaluations_will_want_is_started_ahead_once_for_those_who_can_use_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("townlet_train.envs.choice.free_cores", lambda: 2)
    monkeypatch.setattr(Slow, "__module__", "__main__")  # as if the running script had defined it
    monkeypatch.setattr(sys.modules["__main__"], "Slow", Slow, raising=False)
    gymnasium.register("Script-v0", entry_point=Slow)
    gymnasium.register("Module-v0", entry_point="tests.strange_envs:Slow")
    try:
        for env_id, n_started in (("town", 0), ("Script-v0", 0), ("Module-v0", 1)):
            with closing(Processes()) as processes:
                EvaluationService(RunConfig(env=env_id), processes=processes).start_ahead()
                assert len(processes._idle) == n_started
    finally:
        del gymnasium.registry["Script-v0"], gymnasium.registry["Module-v0"]


def test_a_process_started_ahead_is_the_first_to_step() -> None:
    with closing(Processes()) as processes:
        processes.start_ahead(1)
        processes.start_ahead(1)  # there is one
        (idle,) = processes._idle
        with closing(WorkerVectorEnv(KnownValues, 2, 2, processes=processes)) as env:
            assert env._workers[0].popen is idle.popen


def test_processes_that_are_kept_end_when_nobody_wants_them_any_more() -> None:
    processes = Processes()
    with closing(WorkerVectorEnv(KnownValues, 2, 2, processes=processes)) as env:
        popen = env._workers[0].popen
    assert popen.poll() is None
    processes.close()
    assert popen.poll() is not None


def test_a_process_that_died_is_replaced_and_one_with_a_broken_set_is_not_kept() -> None:
    with closing(Processes()) as processes:
        with closing(WorkerVectorEnv(KnownValues, 2, 2, processes=processes)) as env:
            first = env._workers[0].popen
        first.kill()
        first.wait()
        with closing(WorkerVectorEnv(KnownValues, 2, 2, processes=processes)) as env:
            second = env._workers[0].popen
            assert second.pid != first.pid
            env.reset(np.array([1, 2]))
            second.kill()
            with pytest.raises(EnvironmentFailedError, match="died"):
                env.step(NOTHING)
        with closing(WorkerVectorEnv(KnownValues, 2, 2, processes=processes)) as env:
            assert env._workers[0].popen.pid != second.pid


def test_processes_of_environments_that_do_not_close_are_ended_and_not_kept() -> None:
    with closing(Processes()) as processes:
        with closing(WorkerVectorEnv(Sticking, 2, 2, processes=processes)) as env:
            popen = env._workers[0].popen
            env.reset(np.array([1, 2]))
            env.step(NOTHING)
        assert popen.poll() is not None


SCRIPT = """
import sys
import numpy as np
import tests.conformance, tests.strange_envs
from townlet_train.envs.workers import WorkerVectorEnv

make = getattr(tests.conformance, sys.argv[1], None) or getattr(tests.strange_envs, sys.argv[1])
env = WorkerVectorEnv(make, 2, 2)
env.reset(np.array([1, 2]))
env.step(np.zeros((2, 1), np.int64))
env.step(np.zeros((2, 1), np.int64))
print(*(worker.popen.pid for worker in env._workers), flush=True)
while True:
    env.step(np.zeros((2, 1), np.int64))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("env", ["KnownValues", "Hanging"])
def test_workers_outlive_no_parent_and_leave_signals_to_it(env: str, name: str, tmp_path: Path) -> None:
    script = tmp_path / "steps.py"  # which does not expect to be imported, and need not
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script), env],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        (worker,) = (int(pid) for pid in parent.stdout.readline().split())
        time.sleep(0.2)  # so that it is stepping, or hanging
        if name == "SIGINT":
            os.killpg(parent.pid, signal.SIGINT)  # as a terminal sends it: to everybody
        else:
            os.kill(parent.pid, getattr(signal, name))
        errors = parent.stderr.read()
    assert parent.returncode != 0
    assert errors.count("Traceback") == (1 if name == "SIGINT" else 0), errors
    deadline = time.monotonic() + 20  # far less than the patience with a hanging environment
    while alive(worker):
        assert time.monotonic() < deadline, "the worker is still alive"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    return False
