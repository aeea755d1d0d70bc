"""Samples in Townlet's layout: what is written comes back, what is broken is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recordings import townlet_sample
from townlet_train.data.layout import Layout
from townlet_train.data.schema import EpisodeKey
from townlet_train.data.storage import (
    describe_sample,
    encode_arrays,
    load_sample,
)
from townlet_train.data.trajectory import Trajectory
from townlet_train.errors import DataError, ExitCode
from townlet_train.files import write_bytes, write_json

LAYOUT = Layout(("a", "b"), ("wait", "north", "chat"), ("self",), 3, "counting")


def build(rng: np.random.Generator, n_steps: int, *, with_maps: bool, with_estimates: bool) -> Trajectory:
    return Trajectory(
        features=rng.random((n_steps, 2), np.float32),
        actions=rng.integers(0, 3, n_steps),
        rewards=rng.random(n_steps, np.float32),
        terminated=np.zeros(n_steps, np.bool_),
        truncated=np.arange(n_steps) == n_steps - 1,
        maps=rng.integers(0, 2, (n_steps, 1, 3, 3)).astype(np.uint8) if with_maps else None,
        action_mask=np.ones((n_steps, 3), np.bool_),
        log_probs=-rng.random(n_steps, np.float32) if with_estimates else None,
        values=rng.random(n_steps + 1, np.float32) if with_estimates else None,
    )


def save(path: Path, trajectory: Trajectory, *, compress: bool = True) -> Path:
    description = describe_sample(
        trajectory, LAYOUT, agent_id="agent0", episode=EpisodeKey(env=1, index=2, seed=3), start_tick=4
    )
    write_bytes(path, encode_arrays(trajectory, compress=compress))
    write_json(path.with_suffix(".json"), description)
    return path


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_steps=st.integers(1, 9),
    with_maps=st.booleans(),
    with_estimates=st.booleans(),
    compress=st.booleans(),
)
def test_a_sample_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    n_steps: int,
    with_maps: bool,
    with_estimates: bool,
    compress: bool,
) -> None:
    trajectory = build(
        np.random.default_rng(seed), n_steps, with_maps=with_maps, with_estimates=with_estimates
    )

    sample = load_sample(save(tmp_path_factory.mktemp("sample") / "one.npz", trajectory, compress=compress))

    for field in dataclasses.fields(Trajectory):
        written, read = getattr(trajectory, field.name), getattr(sample.trajectory, field.name)
        assert (written is None) == (read is None), field.name
        if written is not None:
            np.testing.assert_array_equal(read, written, err_msg=field.name)
            assert read.dtype == written.dtype
    assert sample.layout == (
        LAYOUT if with_maps else dataclasses.replace(LAYOUT, map_channels=(), map_size=0)
    )
    assert (sample.episode, sample.agent_id) == (EpisodeKey(env=1, index=2, seed=3), "agent0")


def test_the_arrays_townlet_reads_are_all_there_in_its_dtypes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = save(tmp_path / "one.npz", build(rng, 5, with_maps=True, with_estimates=False))

    with np.load(path, allow_pickle=False) as archive:
        dtypes = {name: archive[name].dtype.name for name in archive.files}
        shapes = {name: archive[name].shape for name in ("map", "value_preds", "dones")}

    assert dtypes == {
        "map": "float32",
        "features": "float32",
        "actions": "int64",
        "old_log_probs": "float32",
        "rewards": "float32",
        "dones": "bool",
        "value_preds": "float32",
        "terminated": "bool",
        "truncated": "bool",
        "action_mask": "bool",
    }
    assert shapes == {"map": (5, 1, 3, 3), "value_preds": (6,), "dones": (5,)}


def test_the_same_trajectory_gives_the_same_bytes(rng: np.random.Generator) -> None:
    trajectory = build(rng, 6, with_maps=True, with_estimates=True)

    assert encode_arrays(trajectory, compress=True) == encode_arrays(trajectory, compress=True)


def test_a_sample_of_one_step_may_leave_the_step_axis_out(tmp_path: Path) -> None:
    path = townlet_sample(
        tmp_path / "one.npz",
        1,
        arrays={"map": np.ones((2, 3, 3), np.float32), "features": np.ones(3, np.float32)},
    )

    trajectory = load_sample(path).trajectory

    assert trajectory.features.shape == (1, 3)
    assert trajectory.maps is not None
    assert trajectory.maps.shape == (1, 2, 3, 3)


def test_maps_with_fractions_stay_as_they_are(tmp_path: Path) -> None:
    fractions = np.full((4, 2, 3, 3), 0.5, np.float32)

    trajectory = load_sample(townlet_sample(tmp_path / "one.npz", arrays={"map": fractions})).trajectory

    np.testing.assert_array_equal(trajectory.maps, fractions)


def test_action_ids_with_gaps_are_renumbered_by_name(tmp_path: Path) -> None:
    path = townlet_sample(
        tmp_path / "one.npz",
        arrays={"actions": np.array([7, 3, 7, 3])},
        meta={"action_lookup": {'{"kind": "chat"}': 7, '{"kind": "wait"}': 3}},
    )

    sample = load_sample(path)

    assert [sample.layout.action_names[action] for action in sample.trajectory.actions] == [
        "chat",
        "wait",
        "chat",
        "wait",
    ]


BROKEN: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("no rewards", {"rewards": None}, {}, "lacks rewards; it holds"),
    ("no training arrays", {"actions": None, "dones": None}, {}, "lacks actions, dones; it holds"),
    (
        "objects",
        {"rewards": np.array([None] * 4)},
        {},
        "array 'rewards' holds Python objects, which are never unpickled",
    ),
    ("text", {"rewards": np.array(list("abcd"))}, {}, "array 'rewards' holds <U1; expected numbers"),
    (
        "short rewards",
        {"rewards": np.zeros(3, np.float32)},
        {},
        "Axis n_steps of `rewards` is 3; `features` has 4",
    ),
    (
        "long values",
        {"value_preds": np.zeros(6, np.float32)},
        {},
        "Axis n_steps of `values` is 6; `features` has 4",
    ),
    ("flat map", {"map": np.zeros((4, 9), np.float32)}, {}, "`maps` has 2 axes (4, 9); expected 4"),
    (
        "oblong map",
        {"map": np.zeros((4, 2, 3, 5), np.float32)},
        {},
        "the local map is 3 by 5; expected a square",
    ),
    (
        "NaN",
        {"rewards": np.array([0, np.nan, 0, 0], np.float32)},
        {},
        "array 'rewards' has 1 values that are NaN",
    ),
    (
        "infinite",
        {"features": np.full((4, 3), np.inf, np.float32)},
        {},
        "array 'features' has 12 values that are NaN",
    ),
    (
        "half actions",
        {"actions": np.array([0.5, 0, 1, 0])},
        {},
        "array 'actions' holds values that are no int64",
    ),
    (
        "contradiction",
        {"terminated": np.zeros(4, np.bool_)},
        {},
        "`dones` is not `terminated` or `truncated`",
    ),
    ("unnamed id", {"actions": np.array([0, 1, 2, 0])}, {}, "names ids 0, 1 but the actions also use 2"),
    (
        "lookup list",
        {},
        {"action_lookup": ["wait"]},
        "`action_lookup` is ['wait']; it should be a valid object",
    ),
    (
        "wide mask",
        {"action_mask": np.ones((4, 5), np.bool_)},
        {},
        "`action_mask` has 5 columns for 2 named actions",
    ),
    (
        "no names",
        {},
        {"feature_names": None},
        "metadata key `feature_names` is missing; expected a list of 3 names",
    ),
    ("few names", {}, {"feature_names": ["rivalry_max"]}, "has 1 names for an axis of length 3"),
    ("twice", {}, {"feature_names": ["a", "a", "rivalry_max"]}, "names something twice"),
    ("no rivalry", {}, {"feature_names": ["a", "b", "rivalry_max"]}, "lacks rivalry_avoid_count"),
    (
        "seed",
        {},
        {"episode": {"env": 1, "index": 0, "seed": "7"}},
        "`episode.seed` is '7'; it should be a valid int",
    ),
    (
        "placeholders",
        {},
        {"placeholder_arrays": "value_preds"},
        "`placeholder_arrays` is 'value_preds'; it should be",
    ),
    (
        "placeholder",
        {},
        {"placeholder_arrays": [3]},
        "`placeholder_arrays.0` is 3; it should be a valid string",
    ),
    ("timesteps", {}, {"timesteps": 5}, "has 4 steps; its metadata says `timesteps` 5"),
    ("agent", {}, {"agent_id": 3}, "`agent_id` is 3; it should be a valid string"),
    (
        "version",
        {},
        {"format": "townlet-train/sample", "format_version": 2},
        "has format version 2; this release reads",
    ),
    (
        "alike",
        {},
        {"action_lookup": {'{"kind": "wait"}': 0, '{"kind": "move", "name": "wait"}': 1}},
        "`action_lookup` has two ids for the action 'wait'",
    ),
    (
        "one id",
        {},
        {"action_lookup": {'{"kind": "wait"}': 0, '{"kind": "chat"}': 0}},
        "`action_lookup` gives id 0 to two actions",
    ),
    ("episode", {}, {"episode": {"env": 1}}, "the key `episode.index` is missing"),
]


@pytest.mark.parametrize(
    ("arrays", "meta", "sentence"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_a_broken_sample_is_refused_by_name(
    tmp_path: Path, arrays: dict[str, Any], meta: dict[str, Any], sentence: str
) -> None:
    path = townlet_sample(tmp_path / "broken.npz", arrays=arrays, meta=meta)

    with pytest.raises(DataError) as refusal:
        load_sample(path)

    assert str(path.with_suffix("")) in str(refusal.value)
    assert sentence in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.FAILED


def test_a_truncated_npz_is_refused_by_name(tmp_path: Path) -> None:
    path = townlet_sample(tmp_path / "cut.npz")
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(DataError, match=r"cut\.npz is truncated or damaged"):
        load_sample(path)


def test_damage_in_the_middle_of_an_npz_is_noticed(tmp_path: Path) -> None:
    path = townlet_sample(tmp_path / "damaged.npz", 64)
    content = bytearray(path.read_bytes())
    content[600:610] = b"\xff" * 10
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"damaged\.npz is truncated or damaged"):
        load_sample(path)


def test_no_damage_ends_in_anything_but_a_refusal(tmp_path: Path, rng: np.random.Generator) -> None:
    path = townlet_sample(tmp_path / "one.npz")
    whole = path.read_bytes()
    refusals: list[str] = []

    for _ in range(400):
        content = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.2 else whole)
        for place in rng.integers(len(content), size=2) if content else []:
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            load_sample(path)
        except DataError as refusal:
            refusals.append(str(refusal))

    assert len(refusals) > 200
    assert all(str(path) in sentence for sentence in refusals)


def test_a_file_that_is_no_npz_is_refused_by_name(tmp_path: Path) -> None:
    path = townlet_sample(tmp_path / "text.npz")
    path.write_bytes(b"not a zip")

    with pytest.raises(DataError, match=r"text\.npz is not an npz file"):
        load_sample(path)


def test_a_sample_without_its_json_is_refused_by_name(tmp_path: Path) -> None:
    path = townlet_sample(tmp_path / "alone.npz")
    path.with_suffix(".json").unlink()

    with pytest.raises(DataError, match=r"alone\.npz has no metadata: .*alone\.json does not exist"):
        load_sample(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "is not JSON: "), ("[]", "is a list; expected an object")],
    ids=["cut", "list"],
)
def test_metadata_that_is_no_object_is_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    path = townlet_sample(tmp_path / "one.npz")
    path.with_suffix(".json").write_text(text)

    with pytest.raises(DataError) as refusal:
        load_sample(path)

    assert f"Metadata {path.with_suffix('.json')} {sentence}" in str(refusal.value)


def test_a_trajectory_of_no_steps_is_refused() -> None:
    empty = np.zeros(0, np.float32)
    flags = np.zeros(0, np.bool_)

    with pytest.raises(DataError, match="at least one step"):
        Trajectory(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), empty, flags, flags)


def test_townlets_own_captures_load_with_their_names(townlet_data: Path) -> None:
    captures = townlet_data / "data/bc_datasets/captures/idle_v1"

    alice = load_sample(captures / "idle_alice.npz")

    assert alice.trajectory.features.shape == (200, 68)
    assert alice.layout.action_names == ("wait",)
    assert (int(alice.trajectory.ended.sum()), alice.trajectory.n_dead) == (174, 173)


def test_an_observation_without_training_arrays_is_refused_by_name(townlet_data: Path) -> None:
    with pytest.raises(
        DataError, match="lacks actions, old_log_probs, rewards, dones, value_preds; it holds features, map"
    ):
        load_sample(townlet_data / "docs/samples/observation_hybrid_compiled.npz")
