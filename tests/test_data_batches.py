"""Trajectories in batches of one shape, and the numbers that describe them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.recordings import townlet_sample, write_manifest
from townlet_train.data.batches import TrajectoryDataset
from townlet_train.data.metrics import action_metrics, baseline_metrics, sample_metrics
from townlet_train.data.replay import SampleReplay, open_replay
from townlet_train.data.storage import load_sample
from townlet_train.errors import DataError


@pytest.fixture
def replay(tmp_path: Path) -> SampleReplay:
    """Five samples of 4 steps and two of 6."""
    names = []
    for index in range(7):
        names.append(f"s{index}.npz")
        townlet_sample(
            tmp_path / names[-1],
            4 if index < 5 else 6,
            arrays={"rewards": np.full(4 if index < 5 else 6, index, np.float32)},
        )
    opened = open_replay(write_manifest(tmp_path / "m.json", names))
    assert isinstance(opened, SampleReplay)
    return opened


def first_rewards(dataset: TrajectoryDataset) -> list[list[float]]:
    return [batch.rewards[:, 0].tolist() for batch in dataset]


@pytest.mark.parametrize("streaming", [True, False])
def test_batches_never_mix_shapes(replay: SampleReplay, streaming: bool) -> None:
    dataset = TrajectoryDataset(replay, batch_size=2, streaming=streaming)

    assert first_rewards(dataset) == [[0, 1], [2, 3], [4], [5, 6]]
    assert len(dataset) == 4
    assert [batch.features.shape for batch in dataset] == [(2, 4, 3), (2, 4, 3), (1, 4, 3), (2, 6, 3)]


def test_short_batches_can_be_dropped(replay: SampleReplay) -> None:
    dataset = TrajectoryDataset(replay, batch_size=2, drop_last=True)

    assert first_rewards(dataset) == [[0, 1], [2, 3], [5, 6]]
    assert len(dataset) == 3


def test_every_epoch_is_shuffled_anew_and_complete(replay: SampleReplay, rng: np.random.Generator) -> None:
    dataset = TrajectoryDataset(replay, batch_size=1, rng=rng)

    epochs = [[rewards[0] for rewards in first_rewards(dataset)] for _ in range(4)]

    assert all(sorted(epoch) == [0, 1, 2, 3, 4, 5, 6] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_streaming_knows_the_baseline_too(replay: SampleReplay) -> None:
    kept, streamed = (TrajectoryDataset(replay, streaming=streaming) for streaming in (False, True))

    assert kept.baseline_metrics == streamed.baseline_metrics
    assert kept.baseline_metrics["reward_sum"] == 4 * (0 + 1 + 2 + 3 + 4) + 6 * (5 + 6)
    assert kept.baseline_metrics["sample_count"] == 7


def test_a_batch_summary_counts_features_on_the_feature_axis(replay: SampleReplay) -> None:
    batch = next(iter(TrajectoryDataset(replay, batch_size=2)))

    summary = batch.summary(1)

    assert (summary["batch"], summary["batch_size"], summary["feature_dim"]) == (1, 2, 3)
    assert summary["conflict.rivalry_max_max"] == pytest.approx(1.0)
    assert summary["conflict.rivalry_max_mean"] == pytest.approx((0.1 + 0.4 + 0.7 + 1.0) / 4)


def test_samples_with_other_action_names_are_not_stacked(tmp_path: Path) -> None:
    townlet_sample(tmp_path / "a.npz")
    townlet_sample(tmp_path / "b.npz", meta={"action_lookup": {'{"kind": "chat"}': 0, '{"kind": "wait"}': 1}})
    replay = open_replay(write_manifest(tmp_path / "m.json", ["a.npz", "b.npz"]))
    assert isinstance(replay, SampleReplay)

    dataset = TrajectoryDataset(replay, batch_size=2)

    assert [batch.action_names[0] for batch in dataset] == ["chat", "wait"]


def test_a_batch_of_nothing_is_refused(replay: SampleReplay) -> None:
    with pytest.raises(DataError, match="The batch size is 0; expected at least 1"):
        TrajectoryDataset(replay, batch_size=0)


def test_sample_metrics_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    sample = load_sample(
        townlet_sample(tmp_path / "a.npz", arrays={"rewards": np.array([1, 2, 3, -2], np.float32)})
    )

    metrics = sample_metrics(sample.trajectory, sample.layout)

    assert metrics == pytest.approx(
        {
            "timesteps": 4,
            "reward_sum": 4,
            "reward_mean": 1,
            "log_prob_mean": -0.5,
            "value_pred_last": 4,
            "rivalry_max_mean": 0.55,
            "rivalry_max_max": 1.0,
            "rivalry_avoid_count_mean": 0.65,
            "rivalry_avoid_count_max": 1.1,
            "action_nonzero": 2,
            "action_total": 4,
            "action_entropy": math.log(2),
            "action_move_count": 2,
            "action_wait_count": 2,
            "action_blocked_ratio": 0,
        }
    )


def test_kinds_of_actions_are_added_up() -> None:
    metrics = action_metrics(np.array([3, 0, 2, 1]), ("north", "wait", "job", "request_bed"))

    assert (metrics["action_move_count"], metrics["action_request_count"]) == (5, 1)
    assert "action_wait_count" not in metrics


def test_sums_and_totals_are_added_up_and_the_rest_averaged() -> None:
    baseline = baseline_metrics([{"reward_sum": 1, "x": 2}, {"reward_sum": 3, "action_total": 4}])

    assert baseline == {
        "sample_count": 2,
        "reward_sum": 4,
        "reward_sum_mean": 2,
        "x": 2,
        "action_total": 4,
        "action_total_mean": 4,
    }
