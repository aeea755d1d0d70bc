"""Episodes shared out over processes: the numbers of one process, and an end in words when one of them goes wrong."""

from __future__ import annotations

import math
from contextlib import closing
from functools import partial
from multiprocessing import Pipe
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.policies import small_checkpoint
from tests.strange_envs import Dying, Hanging, RaisingElsewhere, Slowpoke, in_a_worker
from townlet_train.envs import worker
from townlet_train.envs.channel import Channel
from townlet_train.envs.episodes import Act, Episodes, run_episodes
from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium
from townlet_train.envs.protocol import Actions, EnvSpec, Observation
from townlet_train.envs.workers import WorkerVectorEnv
from townlet_train.errors import EnvironmentFailedError, Interrupted
from townlet_train.policies.network import NetworkPolicy, NetworkSpec

SEEDS = range(70, 81)


def idle(observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
    return np.zeros(uniforms.shape, np.int64)


def raising_elsewhere(observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
    if in_a_worker():
        raise ZeroDivisionError("out of ideas")
    return idle(observation, uniforms)


def raising(observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
    raise ZeroDivisionError("out of ideas")


class Stuck:
    """Acts, and does not let itself be pickled."""

    def __call__(self, observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
        return idle(observation, uniforms)

    def __reduce__(self) -> Any:
        raise RuntimeError("out of boxes")


class Unknown(Stuck):
    """Acts, and is not what it was where it arrives."""

    def __reduce__(self) -> Any:
        return math.sqrt, (-1.0,)


def no_report(done: int, total: int) -> None:
    """Hear nothing."""


def assert_equal(mine: Episodes, theirs: Episodes) -> None:
    np.testing.assert_array_equal(mine.returns, theirs.returns)
    np.testing.assert_array_equal(mine.lengths, theirs.lengths)
    assert mine.events == theirs.events


def sampled(spec: EnvSpec) -> Act:
    """A network's actions, drawn."""
    n_actions = len(spec.action_names) or len(spec.action_low)
    distribution = "gaussian" if spec.action_low else "categorical"
    network = NetworkSpec(
        "mlp", len(spec.feature_names), n_actions, hidden_sizes=(8,), distribution=distribution
    )
    return NetworkPolicy(small_checkpoint(network, spec)).act


@pytest.mark.parametrize("n_workers", [2, 3])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1"])
def test_episodes_shared_out_are_those_of_one_process(env_id: str, n_workers: int) -> None:
    make = partial(make_gymnasium, env_id)
    with closing(GymnasiumVectorEnv(make, 5)) as plain, closing(WorkerVectorEnv(make, 5, n_workers)) as env:
        act = sampled(env.spec)
        expected = run_episodes(act, plain, SEEDS)
        assert len(set(expected.returns[:, 0].tolist())) > 3
        for _ in range(2):  # what one evaluation leaves behind is nothing to the next
            shared = env.share_episodes(act, SEEDS, no_report)
            assert shared is not None
            assert_equal(shared, expected)
            assert_equal(run_episodes(act, env, SEEDS), expected)


def test_what_cannot_be_shared_out_is_stepped_together_with_the_same_numbers() -> None:
    make = partial(make_gymnasium, "CartPole-v1")
    with closing(GymnasiumVectorEnv(make, 3)) as plain, closing(WorkerVectorEnv(make, 3, 2)) as env:
        network = sampled(env.spec)

        def local(observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
            return network(observation, uniforms)

        for act, seeds in ((local, SEEDS), (Stuck(), SEEDS), (Unknown(), SEEDS), (network, SEEDS[:1])):
            assert env.share_episodes(act, seeds, no_report) is None
            assert_equal(run_episodes(act, env, seeds), run_episodes(act, plain, seeds))


def test_progress_arrives_at_all_episodes_and_never_falls() -> None:
    heard: list[tuple[int, int]] = []
    with closing(WorkerVectorEnv(partial(make_gymnasium, "CartPole-v1"), 4, 2)) as env:
        run_episodes(sampled(env.spec), env, SEEDS, lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1] == (len(SEEDS), len(SEEDS))


def test_who_still_plays_is_waited_for_longer_than_who_says_nothing() -> None:
    with closing(
        WorkerVectorEnv(Slowpoke, 2, 2, patience=1.5)
    ) as env:  # a worker's episode takes three seconds
        assert run_episodes(idle, env, [1, 2]).lengths.tolist() == [10, 10]


def test_who_plays_goes_on_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEAT", 0.0)
    here, there = Pipe()
    beat = worker.heartbeat(Channel(here))
    for done in range(10_000):  # far more than a line holds
        beat(done, 10_000)
    assert Channel(there).get() == worker.AT_WORK


def test_who_stops_while_another_still_plays_stops_at_once_and_ends_it() -> None:
    n_heard = 0

    def report(done: int, total: int) -> None:
        nonlocal n_heard
        n_heard += done == total
        if n_heard == 2:  # once for the own episode, once more while waiting for the other one
            raise Interrupted("stop")

    with closing(WorkerVectorEnv(Slowpoke, 2, 2)) as env:
        popen = env._workers[0].popen
        with pytest.raises(Interrupted):
            run_episodes(idle, env, [1, 2], report)
        assert popen.poll() is not None


@pytest.mark.parametrize(
    ("make", "act", "error", "sentence"),
    [
        (Hanging, idle, EnvironmentFailedError, "environments 1 to 1 of Hanging did not answer 'play' within 2 sec"),
        (Dying, idle, EnvironmentFailedError, "environments 1 to 1 of Dying died with exit code 3"),
        (RaisingElsewhere, idle, EnvironmentFailedError, "environment 1, raised ZeroDivisionError on action 0"),
        (Slowpoke, raising, ZeroDivisionError, "out of ideas"),
        (Slowpoke, raising_elsewhere, EnvironmentFailedError, "1 to 1, raised in play: ZeroDivisionError.*of ideas"),
    ],
    ids=["hangs", "dies", "raises", "policy", "policy elsewhere"],
)  # fmt: skip
def test_what_goes_wrong_among_shared_episodes_is_told_in_words(
    make: Any, act: Act, error: type[Exception], sentence: str
) -> None:
    with closing(WorkerVectorEnv(make, 2, 2, patience=2)) as env:
        env._own = GymnasiumVectorEnv(Slowpoke, 1)  # whose episode ends
        with pytest.raises(error, match=sentence):
            run_episodes(act, env, [1, 2])
