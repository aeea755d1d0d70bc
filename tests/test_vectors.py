"""Actions that are vectors: captured as they were taken, counted without names, cloned, and gone on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from tests import recordings
from tests.fakes import CountingEnv, LastLegalPolicy
from townlet_train.config import RunConfig
from townlet_train.data.storage import load_sample
from townlet_train.envs.build import build_env
from townlet_train.envs.protocol import Observation
from townlet_train.errors import DataError
from townlet_train.services.recordings import convert_recording, merge_recordings, recording_stats
from townlet_train.services.replay import ReplayDatasetService
from townlet_train.services.rollout import RolloutCaptureService

SERVICE = ReplayDatasetService()


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_a_recording_played_again_earns_what_it_says(store: str, tmp_path: Path) -> None:
    captured = recordings.capture_vectors(tmp_path / "capture", store=store)
    assert (captured.action_counts, captured.action_entropy, captured.illegal_actions) == ({}, None, 0)
    loaded = SERVICE.load(tmp_path / "capture")
    assert (loaded.actions.dtype, loaded.actions.shape) == (np.float32, (500, 1))
    assert (loaded.action_names, loaded.action_low, loaded.action_high) == ((), (-2,), (2,))
    env = gymnasium.make("Pendulum-v1")
    rows = np.flatnonzero(loaded.episode == 0)
    seen, _ = env.reset(seed=5)
    assert len(rows) == 200
    for row in rows:
        np.testing.assert_allclose(loaded.features[row], seen, atol=1e-5)
        seen, *_ = env.step(loaded.actions[row])


def test_of_vectors_bounds_and_range_are_told_and_nothing_is_counted(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "capture")
    found, actions = SERVICE.inspect(tmp_path / "capture"), SERVICE.load(tmp_path / "capture").actions
    assert found.action_bounds == ((-2, 2),)
    assert found.action_range == ((actions.min(), actions.max()),)
    assert (found.action_names, found.action_counts, found.has_masks) == ((), {}, False)
    assert found.action_entropy is found.majority_share is None
    assert not any(name.startswith("action") for name in found.baseline)
    stats = recording_stats(tmp_path / "capture", held_out=tmp_path / "capture")
    assert (stats.action_counts, stats.action_entropy, stats.mask_violations) == ({}, None, 0)
    assert (stats.repeated_frames, stats.shared_frames) == (0, 500)
    assert SERVICE.validate(tmp_path / "capture").problems == ()


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_the_bounds_of_a_recording_are_told_without_reading_it(store: str, tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "vectors", store=store)
    recordings.capture(tmp_path / "named", store=store)
    assert SERVICE.action_bounds(tmp_path / "vectors") == ((-2, 2),)
    assert SERVICE.action_bounds(tmp_path / "named") == ()


def test_vectors_are_converted_there_and_back_merged_and_split(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "store", store="memmap")
    recordings.capture_vectors(tmp_path / "other", store="memmap", seed=50)
    convert_recording(tmp_path / "store", tmp_path / "samples", "npz")
    convert_recording(tmp_path / "samples", tmp_path / "again", "memmap")
    for path in sorted((tmp_path / "store").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert merge_recordings([tmp_path / "store", tmp_path / "other"], tmp_path / "both").frames == 1000
    parts = SERVICE.split(tmp_path / "both", fraction=0.5, seed=1)
    assert len(SERVICE.load(Path(parts.train))) + len(SERVICE.load(Path(parts.held_out))) == 1000
    assert SERVICE.load(Path(parts.train)).action_high == (2,)


def test_only_actions_that_differ_make_frames_differ(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "store", store="memmap")
    [features] = (tmp_path / "store").glob("features.npy")
    array = np.load(features)
    array[:] = 0
    np.save(features, array)
    assert recording_stats(tmp_path / "store").repeated_frames == 0


class TooStrong:
    """Pushes harder than a pendulum takes, every second tick."""

    name = "too strong"

    def __init__(self) -> None:
        self._tick = 0

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.float32]:
        self._tick += 1
        return np.full(uniforms.shape, 2.5 if self._tick % 2 else 1.5, np.float32)


def test_vectors_beyond_their_bounds_are_counted_and_not_learned_from(tmp_path: Path) -> None:
    env = build_env(RunConfig(env="Pendulum-v1"), 2)
    captured = RolloutCaptureService().capture(
        env, TooStrong(), ticks=10, seeds=(1, 2), output=tmp_path / "capture"
    )
    assert captured.illegal_actions == 10
    assert captured.warnings == ("10 actions were taken beyond their bounds.",)
    assert SERVICE.inspect(tmp_path / "capture").mask_violations == 10
    [problem] = SERVICE.validate(tmp_path / "capture").problems
    assert problem.problem.endswith("10 actions lie outside of their bounds.")
    with pytest.raises(
        DataError, match=r"5 actions lie outside of their bounds, the first is \[2\.5\] in frame 0"
    ):
        SERVICE.load(tmp_path / "capture")


def test_a_vector_that_never_changes_teaches_nothing(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "capture", policy="idle")
    [problem] = SERVICE.validate(tmp_path / "capture").problems
    assert "every one of 500 actions is '[0.0]', so there is nothing to learn" in problem.problem


def test_vectors_and_named_actions_do_not_mix(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "vectors")
    RolloutCaptureService().capture(
        CountingEnv(), LastLegalPolicy(), ticks=3, seeds=(5, 6), output=tmp_path / "named"
    )
    both = [str(next((tmp_path / name).glob("*.npz"))) for name in ("vectors", "named")]
    mixed = recordings.write_manifest(tmp_path / "mixed.json", both)
    with pytest.raises(DataError, match="has named actions; expected vectors with action_low -2 as actions"):
        SERVICE.inspect(mixed)
    with pytest.raises(DataError, match="has vectors as actions; expected only left, right"):
        SERVICE.load(tmp_path / "vectors", action_names=("left", "right"))
    with pytest.raises(DataError, match=r"has the actions .*; expected vectors"):
        SERVICE.load(tmp_path / "named", action_names=())


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"action_low": [-2.0, -2.0]}, "action_low has 2 bounds, action_high 1"),
        ({"action_low": [3.0]}, "a bound of action_low is above that of action_high"),
        ({"action_names": ["left"]}, "expected names of actions, or else bounds of vectors"),
        ({"action_low": ["low"]}, r"`metadata\.action_low\.0` is 'low'; it should be a valid number"),
    ],
)
def test_bounds_that_cannot_be_are_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    manifest = Path(recordings.capture_vectors(tmp_path / "capture", store="memmap").manifest)
    changed(manifest, lambda document: document["metadata"].update(change))
    with pytest.raises(DataError, match=sentence):
        SERVICE.load(tmp_path / "capture")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"action_low": [-2.0, -2.0], "action_high": [2.0, 2.0]}, "have 1 dimensions, `action_low` bounds 2"),
        ({"action_low": [], "action_high": []}, "array 'actions' holds values that are no int64"),
        ({"action_lookup": {"left": 0}}, "names actions and bounds vectors; expected one of the two"),
    ],
)
def test_a_sample_that_contradicts_its_bounds_is_refused(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    recordings.capture_vectors(tmp_path / "capture")
    sample = next((tmp_path / "capture").glob("*.npz"))
    changed(sample.with_suffix(".json"), lambda document: document.update(change))
    with pytest.raises(DataError, match=sentence):
        load_sample(sample)


def test_vectors_without_bounds_are_recorded_as_such(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "capture")
    manifest = next((tmp_path / "capture").glob("*_manifest.json"))
    for path in (*(tmp_path / "capture").glob("*_agent0_*.json"), manifest):
        changed(path, lambda document: document.get("metadata", document).update(action_high=[None]))
    found = SERVICE.inspect(next((tmp_path / "capture").glob("*.npz")))
    assert (found.action_bounds, found.mask_violations) == (((-2, None),), 0)
