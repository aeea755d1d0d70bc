"""Townlet's telemetry: every field is a number that somebody can recount, and survives a resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import CountingEnv
from townlet_train.config import RunConfig
from townlet_train.contract import AnnealContext, Progress
from townlet_train.errors import Interrupted
from townlet_train.orchestrator import run_strategy
from townlet_train.results import PPOTrainingResultDTO
from townlet_train.services.rolling import read_log
from townlet_train.sim.layout import EVENTS

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.telemetry import (  # noqa: E402
    EVENT_OF,
    EventTally,
    anneal_fields,
    baseline_fields,
    batch_deviations,
    conflict_fields,
    correlation,
    event_fields,
)

TOWN = {"n_envs": 2, "n_steps": 100, "batch_size": 150, "n_epochs": 1, "evaluation_episodes": 0}
STEPS = 2 * 6 * 100  # of a rollout in two towns of six agents


RUN = ("report", "resume_from", "overwrite")  # options of a run that are no params


def train(folder: Path, rollouts: int, **given: Any) -> PPOTrainingResultDTO:
    options = {name: given.pop(name) for name in RUN if name in given}
    params = {**TOWN, "timesteps": rollouts * STEPS, **given}
    result = run_strategy("ppo", params, config=RunConfig(seed=1), run_dir=folder, **options)
    assert isinstance(result, PPOTrainingResultDTO)
    return result


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    """A document without its times, and without where and from what file it came."""
    times = ("_sec", "timestamp", "checkpoint", "checkpoint_sha256", "warnings")
    return {name: value for name, value in document.items() if not name.endswith(times)}


def test_events_are_those_since_the_mark_before() -> None:
    env = CountingEnv()
    env.reset(np.array([1, 2]))
    tally = EventTally(env.event_counts)
    chats, other = np.full((2, 2), 2), np.zeros((2, 2), np.int64)
    env.step(chats)
    tally.mark()
    assert tally.counts() == {"chat_success": 4}
    env.step(other)
    env.step(np.array([[2, 0], [0, 0]]))
    tally.mark()
    assert tally.counts() == {"chat_success": 1}


def test_a_count_goes_on_in_the_middle_of_a_rollout() -> None:
    env, later = CountingEnv(), CountingEnv()
    env.reset(np.array([1, 2]))
    tally = EventTally(env.event_counts)
    env.step(np.full((2, 2), 2))
    tally.mark()
    env.step(np.full((2, 2), 2))  # of the next rollout
    later.reset(np.array([1, 2]))
    resumed = EventTally(later.event_counts)
    later.set_state(env.get_state())
    resumed.restore(tally.state())
    later.step(np.full((2, 2), 2))
    resumed.mark()
    assert resumed.counts() == {"chat_success": 8}


def test_every_event_that_is_counted_is_one_of_the_towns() -> None:
    assert set(EVENT_OF.values()) <= set(EVENTS)


def test_the_quality_of_chats_is_null_without_any_and_events_are_where_no_town_is() -> None:
    assert event_fields({"chat_success": 4.0, "chat_quality": 3.0})["chat_quality_mean"] == 0.75
    assert event_fields({"chat_success": 0.0, "chat_quality": 0.0})["chat_quality_mean"] is None
    assert set(event_fields({}).values()) == {None}


def test_the_baseline_describes_a_sample_for_each_slot() -> None:
    rewards = np.array([[[1.0, 2.0]], [[3.0, 6.0]]], np.float32)  # two ticks, one town, two agents
    assert baseline_fields(rewards, 2) == {
        "baseline_sample_count": 2,
        "baseline_reward_mean": 3.0,
        "baseline_reward_sum": 12.0,
        "baseline_reward_sum_mean": 6.0,
    }


def test_rivalry_is_averaged_over_slots() -> None:
    observed = np.zeros((3, 1, 2, 2), np.float32)
    observed[:, 0, 0, 1] = (0.0, 0.5, 1.0)
    fields = conflict_fields(observed, ("hunger", "rivalry_max"))
    assert fields == {"rivalry_max_mean_avg": 0.25, "rivalry_max_max_avg": 0.5}
    assert conflict_fields(observed, ("x", "y")) == {}


def test_a_correlation_with_a_constant_is_none_at_all() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 50, 3))
    expected = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert correlation(first, second) == pytest.approx(expected)
    assert math.isnan(correlation(first, np.ones_like(first)))


@pytest.mark.parametrize(("n", "batch_size"), [(10, 5), (11, 5), (3, 5)])
def test_deviations_are_those_of_the_batches_as_they_are_cut(n: int, batch_size: int) -> None:
    values = np.random.default_rng(n).normal(size=n).astype(np.float32)
    expected = [values[start : start + batch_size].std() for start in range(0, n, batch_size)]
    np.testing.assert_allclose(batch_deviations(values, batch_size), expected, rtol=1e-5)


def test_a_stage_of_an_anneal_says_what_it_is_measured_against() -> None:
    context = AnnealContext(2, "C1", "idle", 0.95, 0.9, True, 0.5, 3.0, 4.5, 0.1, 0.15)
    fields = anneal_fields(context)
    assert (fields["anneal_cycle"], fields["anneal_stage"], fields["anneal_bc_passed"]) == (2, "C1", True)
    assert fields["anneal_intensity_baseline"] == 4.5
    assert fields.keys() <= PPOTrainingResultDTO.model_fields.keys()
    assert anneal_fields(None) == {}


def test_a_town_fills_every_field_that_no_anneal_would(tmp_path: Path) -> None:
    result = train(tmp_path / "run", 2)
    empty = {
        name
        for name in ("rollout_ticks", "conflict", *EVENT_OF, *PPOTrainingResultDTO.model_fields)
        if getattr(result, name) in (None, {}) and not name.startswith("anneal_")
    }
    assert empty <= {"chat_quality_mean", "reference_kl", "reward_threshold", "converged", "evaluation"} | {
        "final_reward_mean", "final_reward_std", "episode_length_mean",
    }  # fmt: skip
    assert (result.cycle_id, result.log_stream_offset, result.rollout_ticks) == (1, 2, 100)
    assert result.baseline_sample_count == 12
    assert result.epoch_duration_sec is not None
    assert result.epoch_duration_sec < result.collect_sec + result.update_sec
    assert set(result.conflict) == {
        f"rivalry_{name}_{what}_avg" for name in ("max", "avoid_count") for what in ("mean", "max")
    }


def test_a_resumed_run_ends_with_the_numbers_of_one_that_was_never_stopped(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 1.5 * STEPS:  # in the middle of a rollout
            raise Interrupted("Stopped.")

    straight = train(tmp_path / "straight", 3)
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed", 3, report=stop)
    resumed = train(tmp_path / "resumed", 3, resume_from="latest")
    assert timeless(resumed.model_dump()) == timeless(straight.model_dump())
    for name in ("metrics.jsonl", "ppo_log.jsonl"):
        first, second = (
            [timeless(line) for line in read_log(tmp_path / folder / name)]
            for folder in ("straight", "resumed")
        )
        assert len(first) > 1
        assert first == second


def test_the_log_of_ppo_has_a_record_for_each_of_so_many_rollouts(tmp_path: Path) -> None:
    result = train(tmp_path / "run", 5, telemetry_frequency=2, telemetry_max_entries=1)
    records = read_log(tmp_path / "run/ppo_log.jsonl")
    assert [record["epoch"] for record in records] == [2, 4]
    assert (tmp_path / "run/ppo_log.1.jsonl").exists()
    document = result.model_dump()
    names = {name for name in records[0] if not name.startswith("conflict.")}
    assert names <= document.keys()
    assert {name for name in records[0] if name.startswith("conflict.")} == {
        f"conflict.{name}" for name in result.conflict
    }
    assert names >= {
        "telemetry_version",
        "queue_conflict_events",
        "baseline_reward_mean",
        "lr",
        "epoch_duration_sec",
    }


def test_a_log_that_nobody_wants_is_not_written(tmp_path: Path) -> None:
    train(tmp_path / "run", 1, telemetry_frequency=0)
    assert list((tmp_path / "run").glob("ppo_log*")) == []


def test_going_back_to_an_earlier_checkpoint_takes_later_records_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, 3, checkpoint_interval=STEPS // 2)
    before = [timeless(record) for record in read_log(folder / "ppo_log.jsonl")]
    train(folder, 2, resume_from=folder / f"checkpoint_{STEPS}.zip", overwrite=True)
    assert [timeless(record) for record in read_log(folder / "ppo_log.jsonl")] == before[:2]
