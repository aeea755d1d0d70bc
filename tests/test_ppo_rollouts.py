"""Collecting: a rollout is what happened; values continue an episode that was cut, never a life that ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import SPEC, CountingEnv
from tests.policies import MLP

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.curve import TrainingCurve  # noqa: E402
from townlet_train.learners.ppo import PPOLearner  # noqa: E402
from townlet_train.learners.rollouts import Episode, Rollout, RolloutCollector, evaluated  # noqa: E402
from townlet_train.strategies.ppo import PPOParams  # noqa: E402

LAST_TICK = SPEC.episode_ticks - 1


@pytest.fixture
def learner(rng: np.random.Generator) -> PPOLearner:
    return PPOLearner(replace(MLP, feature_clip=1e9), PPOParams(), rng)


def collector(n_steps: int, env: CountingEnv | None = None, seed: int = 3) -> RolloutCollector:
    env = env or CountingEnv()
    seeds = np.arange(env.n_envs)
    return RolloutCollector(env, MLP, n_steps=n_steps, seeds=seeds, rng=np.random.default_rng(seed))


def finished(collecting: RolloutCollector, learner: PPOLearner) -> Rollout:
    """What was played, as PPO learns from it."""
    played, _ = collecting.finish()
    return evaluated(played, learner.actor_critic)


def test_a_rollout_holds_what_was_seen_legal_and_paid(learner: PPOLearner) -> None:
    collecting = collector(n_steps=8)
    collecting.advance(learner.actor_critic, 8)
    rollout = finished(collecting, learner)
    assert rollout.features.shape == (8, 2, 2, 5)
    assert rollout.features[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert rollout.illegal is not None
    assert not np.take_along_axis(rollout.illegal, rollout.actions[..., None], axis=-1).any()
    dies = np.zeros((8, 2, 2), np.bool_)
    dies[2, :, 1] = True
    np.testing.assert_array_equal(rollout.terminated, dies)
    np.testing.assert_array_equal(rollout.rewards[~dies], rollout.actions[~dies].astype(np.float32))
    assert rollout.truncated.all(axis=(1, 2)).tolist() == [False] * 5 + [True, False, False]


def test_a_cut_episode_is_continued_by_the_value_of_its_last_observation(learner: PPOLearner) -> None:
    collecting = collector(n_steps=8)
    collecting.advance(learner.actor_critic, 8)
    rollout = finished(collecting, learner)
    last = rollout.features[LAST_TICK].copy()
    last[..., 0] += 1
    last[..., 3] = rollout.actions[LAST_TICK]
    _, expected = learner.actor_critic.evaluate(last.reshape(4, 5), None)
    np.testing.assert_allclose(rollout.final_values[LAST_TICK].ravel(), expected, rtol=1e-5)
    elsewhere = np.delete(rollout.final_values, LAST_TICK, axis=0)
    assert not elsewhere.any()
    _, first = learner.actor_critic.evaluate(rollout.features[6].reshape(4, 5), None)
    np.testing.assert_allclose(rollout.values[6].ravel(), first, rtol=1e-5)


class DyingAtTheCut(CountingEnv):
    """Agent 0 dies in the very tick that cuts the episode."""

    def step(self, actions: NDArray[np.int64]):  # type: ignore[no-untyped-def]  # as in the parent
        step = super().step(actions)
        step.terminated[:, 0] = step.truncated[:, 0]
        return step


def test_who_dies_as_the_episode_is_cut_is_not_continued(learner: PPOLearner) -> None:
    collecting = collector(n_steps=8, env=DyingAtTheCut())
    collecting.advance(learner.actor_critic, 8)
    rollout = finished(collecting, learner)
    assert not rollout.final_values[LAST_TICK, :, 0].any()
    assert rollout.final_values[LAST_TICK, :, 1].all()


def test_a_rollout_in_pieces_is_the_same_rollout(learner: PPOLearner) -> None:
    whole, pieces = collector(n_steps=9), collector(n_steps=9)
    whole.advance(learner.actor_critic, 9)
    for n_ticks in (4, 1, 4):
        pieces.advance(learner.actor_critic, n_ticks)
    first, second = (finished(each, learner) for each in (whole, pieces))
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.values, second.values)


def test_log_probs_are_those_of_the_actions_at_the_time(learner: PPOLearner) -> None:
    collecting = collector(n_steps=4)
    collecting.advance(learner.actor_critic, 4)
    rollout = finished(collecting, learner)
    assert rollout.illegal is not None
    logits = learner.actor_critic.outputs(rollout.features.reshape(-1, 5), None)
    logits = np.where(rollout.illegal.reshape(-1, 3), -np.inf, logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chosen = probabilities[np.arange(len(logits)), rollout.actions.ravel()]
    np.testing.assert_allclose(np.exp(rollout.log_probs).ravel(), chosen, rtol=1e-5)


def test_actions_come_as_often_as_the_policy_says(learner: PPOLearner) -> None:
    env = CountingEnv(n_envs=500, episode_ticks=10**6)
    collecting = collector(n_steps=40, env=env)
    collecting.advance(learner.actor_critic, 40)
    rollout = finished(collecting, learner)
    assert rollout.illegal is not None
    free = ~rollout.illegal.any(axis=-1)
    logits = learner.actor_critic.outputs(rollout.features[free], None)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    seen = np.bincount(rollout.actions[free], minlength=3) / free.sum()
    np.testing.assert_allclose(seen, expected.mean(axis=0), atol=0.02)


def test_an_episode_that_spans_rollouts_is_counted_once_and_whole(learner: PPOLearner) -> None:
    collecting = collector(n_steps=4)
    rewards, episodes = [], []
    for _ in range(4):
        collecting.advance(learner.actor_critic, 4)
        played, ended = collecting.finish()
        rewards.append(played.rewards.mean(axis=2))
        episodes += ended
    paid = np.concatenate(rewards)
    assert [episode.timestep for episode in episodes] == [24, 24, 48, 48]
    assert {episode.episode_length for episode in episodes} == {6}
    for block, ended in ((paid[:6], episodes[:2]), (paid[6:12], episodes[2:])):
        returns = block.sum(axis=0).tolist()  # in the order of the environments, whatever the returns
        assert [episode.episode_return for episode in ended] == pytest.approx(returns)


def test_a_short_rollout_ends_where_it_was_stopped(learner: PPOLearner) -> None:
    collecting = collector(n_steps=100)
    collecting.advance(learner.actor_critic, 3)
    rollout = finished(collecting, learner)
    assert rollout.rewards.shape == (3, 2, 2)
    assert rollout.values.shape == (4, 2, 2)
    assert collecting.timestep == 12
    assert collecting.missing == 100


@dataclass
class Measured:
    """What an update measured."""

    loss: float

    def line(self) -> dict[str, Any]:
        return {"loss": self.loss}


def test_lines_fall_due_every_interval_and_name_the_latest_episode() -> None:
    curve = TrainingCurve(100)
    assert list(curve.lines([], 90, Measured(1.0))) == []
    lines = list(curve.lines([Episode(150, 7.0, 5), Episode(260, 8.0, 6)], 310, Measured(2.0)))
    assert [(line["timestep"], line["episode"], line["reward"]) for line in lines] == [
        (100, 0, None),
        (200, 1, 7.0),
        (300, 2, 8.0),
    ]
    assert [line["loss"] for line in lines] == [1.0, 1.0, 2.0]
    assert curve.summary() == {
        "total_episodes": 2,
        "final_reward_mean": 7.5,
        "final_reward_std": 0.5,
        "episode_length_mean": 5.5,
    }


def test_a_run_too_short_for_a_line_ends_with_one_that_has_everything() -> None:
    curve = TrainingCurve(100)
    assert list(curve.lines([Episode(20, 7.0, 5), Episode(60, 8.0, 6)], 90, Measured(1.0))) == []
    assert curve.only_line(90, Measured(1.0), lambda: {"collect_sec": 2.0}) == {
        "timestep": 90,
        "episode": 2,
        "reward": 8.0,
        "episode_length": 6,
        "loss": 1.0,
        "collect_sec": 2.0,
    }
    assert list(curve.lines([], 100, Measured(2.0)))
    assert curve.only_line(110, Measured(3.0)) is None


def test_features_are_standardised_by_what_earlier_rollouts_saw(learner: PPOLearner) -> None:
    env = CountingEnv()
    collecting = RolloutCollector(
        env, MLP, n_steps=6, seeds=np.arange(2), rng=np.random.default_rng(3), normalize_observations=True
    )
    rollouts = []
    for _ in range(2):
        collecting.advance(learner.actor_critic, 6)
        rollout = finished(collecting, learner)
        rollouts.append(rollout.features.copy())
    ticks = np.arange(6, dtype=np.float32)
    assert rollouts[0][:, 0, 0, 0].tolist() == ticks.tolist()
    np.testing.assert_allclose(rollouts[1][:, 0, 0, 0], (ticks - ticks.mean()) / ticks.std(), rtol=1e-5)
    assert collecting.normaliser is not None
    np.testing.assert_allclose(collecting.normaliser.std[1], 0.5, rtol=1e-5)
