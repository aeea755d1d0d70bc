"""PPO on recorded transitions: what follows is on record or the transition is left out, and results say off-policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.errors import ConfigError, DataError, UsageError
from townlet_train.files import sha256_of
from townlet_train.orchestrator import run_strategy
from townlet_train.results import PPOTrainingResultDTO
from townlet_train.services.rollout import capture_as_configured

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.envs.town import TownVectorEnv  # noqa: E402
from townlet_train.learners.networks import network_for_env  # noqa: E402
from townlet_train.learners.ppo import PPOLearner  # noqa: E402
from townlet_train.learners.replay import (  # noqa: E402
    Frames,
    RecordedRollouts,
    open_recording,
    unfinished,
    whole_transitions,
)
from townlet_train.learners.rollouts import evaluated  # noqa: E402
from townlet_train.strategies.ppo import PPOParams  # noqa: E402

CONFIG = RunConfig.model_validate({"seed": 1, "rollout": {"towns": 3, "ticks": 90}})
ENDS = st.lists(st.tuples(st.sampled_from(["", "dies", "cut"]), st.booleans()), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "npz"
    capture_as_configured(CONFIG, output=path)
    return path


def frames_of(ends: list[tuple[str, bool]]) -> Frames:
    """Frames numbered by their feature; each says how it ends, and whether another life begins after it."""
    n = len(ends)
    begins = [0, *(int(how != "" or new) for how, new in ends[:-1])]
    return Frames(
        features=np.arange(n, dtype=np.float32)[:, None],
        maps=None,
        illegal=np.zeros((n, 2), np.bool_),
        actions=np.zeros(n, np.int64),
        rewards=np.arange(n, dtype=np.float32),
        terminated=np.array([how == "dies" for how, _ in ends]),
        truncated=np.array([how == "cut" for how, _ in ends]),
        life=np.cumsum(begins),
    )


def expected(frames: Frames) -> list[tuple[int, str, int | None]]:
    """(frame, what it ended with, the frame seen after a cut) of every transition, one frame at a time."""
    found: list[tuple[int, str, int | None]] = []
    n = len(frames.actions)
    for t in range(n):
        has_next = t + 1 < n and frames.life[t + 1] == frames.life[t]
        if frames.terminated[t]:
            found.append((t, "dies", None))
        elif not frames.truncated[t] and has_next:
            after_next = t + 2 < n and frames.life[t + 2] == frames.life[t]
            next_is_left_out = not frames.terminated[t + 1] and (frames.truncated[t + 1] or not after_next)
            found.append((t, "cut", t + 1) if next_is_left_out else (t, "", None))
    return found


@given(ENDS)
def test_a_transition_is_kept_when_what_follows_is_on_record(ends: list[tuple[str, bool]]) -> None:
    frames = frames_of(ends)
    kept, cuts, seen = whole_transitions(frames)
    after = dict(zip(cuts.tolist(), seen.features[:, 0].astype(int).tolist(), strict=True))
    got = [
        (
            int(kept.features[i, 0]),
            "dies" if kept.terminated[i] else "cut" if kept.truncated[i] else "",
            after.get(i),
        )
        for i in range(len(kept.actions))
    ]
    assert got == expected(frames)


def recorded(path: Path, n_steps: int, **settings: Any) -> tuple[RecordedRollouts, PPOLearner]:
    env = TownVectorEnv(CONFIG.town, 1)
    spec = network_for_env(env.spec, "mlp", normalised=bool(settings))
    rollouts = open_recording(path, env.spec, spec, n_steps=n_steps, normalize_observations=bool(settings))
    return rollouts, PPOLearner(spec, PPOParams(), np.random.default_rng(0))


def test_one_pass_hands_out_every_transition_once_and_then_begins_anew(capture: Path) -> None:
    rollouts, learner = recorded(capture, 500)
    rewards: list[float] = []
    for _ in range(3):
        rollouts.advance(learner.actor_critic, rollouts.missing)
        rewards += rollouts.finish()[0].rewards.ravel().tolist()
    total = sum(load(path)["rewards"][:-1].sum() for path in capture.glob("*.npz"))
    assert len(rewards) == rollouts.timestep == 3 * 6 * 89
    assert sum(rewards) == pytest.approx(total, rel=1e-5)
    rollouts.advance(learner.actor_critic, rollouts.missing)
    again = rollouts.finish()[0].rewards.ravel().tolist()
    assert again == rewards[: len(again)]


def test_lives_of_a_store_with_many_slots_are_not_cut_into_slivers(tmp_path: Path) -> None:
    config = RunConfig.model_validate({"seed": 1, "rollout": {"towns": 30, "ticks": 70, "store": "memmap"}})
    capture_as_configured(config, output=tmp_path / "capture", with_maps=False)
    rollouts, _ = recorded(tmp_path / "capture", 100)
    assert rollouts.missing == 63 * 30 * 6


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_no_transition_is_lost_where_a_chunk_ends(store: str, tmp_path: Path) -> None:
    config = RunConfig.model_validate({"seed": 1, "rollout": {"towns": 2, "ticks": 200, "store": store}})
    capture_as_configured(config, output=tmp_path / "capture", with_maps=False)
    at_once = one_pass(tmp_path / "capture", 200 * 2 * 6)
    in_chunks = one_pass(tmp_path / "capture", 100)
    assert len(in_chunks) >= 3
    assert len(at_once) == 1
    assert sorted(reward for chunk in in_chunks for reward in chunk) == sorted(at_once[0])


def one_pass(path: Path, n_steps: int) -> list[list[float]]:
    """The rewards of every chunk of a recording, until a chunk comes for the second time."""
    rollouts, learner = recorded(path, n_steps)
    chunks: list[list[float]] = []
    while True:
        rollouts.advance(learner.actor_critic, rollouts.missing)
        chunk = rollouts.finish()[0].rewards.ravel().tolist()
        if chunk in chunks[:1]:
            return chunks
        chunks.append(chunk)


@given(ENDS, st.integers(1, 5))
def test_chunks_of_any_size_have_the_transitions_of_the_whole(
    ends: list[tuple[str, bool]], size: int
) -> None:
    frames, found, carried = frames_of(ends), [], np.zeros(0, np.int64)
    for start in range(0, len(ends), size):
        rows = np.append(carried, np.arange(start, min(start + size, len(ends))))
        found += whole_transitions(frames.take(rows)).frames.features[:, 0].tolist()
        carried = rows[unfinished(frames.take(rows), len(carried))]
    assert found == whole_transitions(frames).frames.features[:, 0].tolist()


def load(path: Path) -> Any:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def test_values_follow_the_recording_to_its_cut(capture: Path) -> None:
    rollouts, learner = recorded(capture, 90)
    rollouts.advance(learner.actor_critic, rollouts.missing)
    played, episodes = rollouts.finish()
    rollout = evaluated(played, learner.actor_critic)
    [sample, *_] = sorted(capture.glob("*.npz"))
    features = load(sample)["features"].astype(np.float32)
    values = learner.actor_critic.evaluate(features, None)[1]
    np.testing.assert_allclose(rollout.values[:89, 0, 0], values[:89], rtol=1e-6)
    np.testing.assert_allclose(rollout.final_values[88, 0, 0], values[89], rtol=1e-6)
    assert rollout.truncated[88, 0, 0]
    assert not rollout.on_policy
    assert episodes == []


def train(run_dir: Path, **params: Any) -> PPOTrainingResultDTO:
    params = {
        "timesteps": 1500,
        "n_steps": 256,
        "batch_size": 64,
        "n_epochs": 2,
        "evaluation_episodes": 0,
    } | params
    result = run_strategy("ppo", params, config=CONFIG, run_dir=run_dir)
    assert isinstance(result, PPOTrainingResultDTO)
    return result


def test_a_policy_learned_from_a_recording_says_so_and_names_it(capture: Path, tmp_path: Path) -> None:
    result = train(tmp_path / "run", capture_dir=capture)
    assert result.data_mode == "replay"
    assert result.steps == 1500
    assert (result.total_episodes, result.final_reward_mean) == (0, None)
    lineage = load_checkpoint(Path(str(result.checkpoint))).info.lineage
    [manifest] = capture.glob("*_manifest.json")
    assert lineage.demonstrations == str(manifest)
    assert lineage.demonstrations_sha256 == sha256_of(manifest)
    assert lineage.training_seeds == ((1, 3),)


def test_mixed_learns_from_rollouts_and_tells_of_the_recording_apart(capture: Path, tmp_path: Path) -> None:
    result = train(tmp_path / "run", capture_dir=capture, mode="mixed", log_interval=100)
    assert result.data_mode == "mixed"
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "approx_kl" in line]
    assert all(line["replay_approx_kl"] != line["approx_kl"] for line in measured)
    assert result.updates == sum(line["n_updates"] + line["replay_n_updates"] for line in measured)


def test_cloned_actions_become_likelier_where_they_paid(capture: Path) -> None:
    rollouts, learner = recorded(capture, 1602)
    rollouts.advance(learner.actor_critic, rollouts.missing)
    rollout = evaluated(rollouts.finish()[0], learner.actor_critic)
    before = rollout.log_probs.ravel()
    advantage = rollout.rewards.ravel() - rollout.rewards.mean()
    myopic = PPOLearner(learner.spec, PPOParams(gamma=0.0, learning_rate=1e-3), np.random.default_rng(0))
    for _ in range(5):
        myopic.update(rollout, 0.0)
    outputs, _ = myopic.actor_critic.evaluate(rollout.features[:, 0, 0], None)
    assert rollout.illegal is not None
    after = myopic.actor_critic.distribution(outputs, rollout.illegal[:, 0, 0].T).log_probs(
        rollout.actions.ravel()
    )
    assert np.corrcoef(after - before, advantage)[0, 1] > 0.1


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"mode": "replay"}, "mode replay learns from a recording: name a replay_manifest"),
        ({"capture_dir": "a", "replay_sample": "b"}, "one of replay_manifest, capture_dir and replay_sample"),
        ({"capture_dir": "a", "mode": "rollout"}, "mode rollout learns from no recording, and one is named"),
    ],
)
def test_contradictions_are_refused(params: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        train(tmp_path / "run", **params)


def test_a_recording_that_is_missing_or_of_another_environment_is_refused(
    capture: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist"):
        train(tmp_path / "run", capture_dir=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="was recorded in environment 'town', the config says 'CartPole-v1'"):
        run_strategy(
            "ppo", {"capture_dir": capture}, config=RunConfig(env="CartPole-v1"), run_dir=tmp_path / "run"
        )
    env = TownVectorEnv(CONFIG.town, 1).spec
    other, network = replace(env, feature_names=("other",)), network_for_env(env, "mlp")
    with pytest.raises(DataError, match="has other features than the environment"):
        open_recording(capture, other, network, n_steps=10, normalize_observations=False)
