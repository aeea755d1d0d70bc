"""Demonstrations: frames of one episode stay together, and batches hold every frame once."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recordings import FEATURE_NAMES, capture, capture_long, townlet_sample, write_manifest
from townlet_train.data.dataset import (
    Demonstrations,
    batches,
    load_demonstrations,
    split_by_episode,
    stream_batches,
)
from townlet_train.data.replay import open_replay
from townlet_train.errors import DataError


def numbered(episodes: list[int]) -> Demonstrations:
    """Demonstrations whose only feature is the frame's number."""
    n_frames = len(episodes)
    return Demonstrations(
        features=np.arange(n_frames, dtype=np.float32)[:, None],
        maps=None,
        actions=np.arange(n_frames) % 2,
        action_mask=np.ones((n_frames, 2), np.bool_),
        episode=np.array(episodes, np.int64),
        feature_names=("number",),
        action_names=("wait", "north"),
        map_channels=(),
        seeds=(),
        label="numbered",
    )


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_demonstrations_hold_what_was_seen_before_each_action(tmp_path: Path, store: str) -> None:
    capture(tmp_path / "capture", store=store)

    demonstrations = load_demonstrations(tmp_path / "capture")

    assert len(demonstrations) == 48
    assert demonstrations.n_episodes == 4
    assert demonstrations.seeds == (5, 6)
    assert demonstrations.action_names == ("wait", "north", "chat")
    assert demonstrations.feature_names == ("tick", "env", "agent", "last_action", "episode")
    assert demonstrations.maps is not None
    assert demonstrations.maps.dtype == np.uint8
    tick, agent = demonstrations.features[:, 0], demonstrations.features[:, 2]
    np.testing.assert_array_equal(demonstrations.maps[:, 1, 0, 0], tick)
    np.testing.assert_array_equal(demonstrations.action_mask[:, 1], tick % 2 == 0)
    expected = np.where(agent == 1, 2, np.where(tick % 2 == 0, 1, 0))
    np.testing.assert_array_equal(demonstrations.actions, expected)
    assert demonstrations.warnings == ()


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_agents_of_one_town_episode_share_its_number(tmp_path: Path, store: str) -> None:
    capture(tmp_path / "capture", store=store)

    demonstrations = load_demonstrations(tmp_path / "capture", with_maps=False)

    env, episode = demonstrations.features[:, 1], demonstrations.features[:, 4]
    pairs: dict[tuple[int, int], set[int]] = {(e, k): set() for e in (0, 1) for k in (0, 1)}
    for e, k, number in zip(env, episode, demonstrations.episode, strict=True):
        pairs[int(e), int(k)].add(int(number))
    assert all(len(numbers) == 1 for numbers in pairs.values())
    assert len(set.union(*pairs.values())) == 4


@settings(max_examples=50, deadline=None)
@given(
    episodes=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda rows: len(set(rows)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_a_split_partitions_the_frames_and_never_an_episode(
    episodes: list[int], fraction: float, seed: int
) -> None:
    demonstrations = numbered(episodes)

    train, held_out = split_by_episode(demonstrations, fraction, np.random.default_rng(seed))

    assert sorted([*train, *held_out]) == list(range(len(episodes)))
    ours, theirs = (set(demonstrations.episode[index].tolist()) for index in (train, held_out))
    assert ours.isdisjoint(theirs)
    assert ours
    assert theirs
    assert abs(len(theirs) - fraction * len(set(episodes))) <= 1


def test_the_same_seed_gives_the_same_split() -> None:
    demonstrations = numbered(list(range(20)) * 3)

    one, other = (split_by_episode(demonstrations, 0.3, np.random.default_rng(4)) for _ in range(2))

    np.testing.assert_array_equal(one[1], other[1])


def test_one_episode_cannot_be_split(rng: np.random.Generator) -> None:
    with pytest.raises(
        DataError, match=r"numbered holds 1 episode; .* needs at least 2\. Capture more towns"
    ):
        split_by_episode(numbered([0, 0, 0]), 0.2, rng)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_share_outside_the_unit_interval_is_refused(rng: np.random.Generator, fraction: float) -> None:
    with pytest.raises(DataError, match="expected a number between 0 and 1"):
        split_by_episode(numbered([0, 1]), fraction, rng)


@settings(max_examples=50, deadline=None)
@given(
    n_frames=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    drop_last=st.booleans(),
    shuffled=st.booleans(),
)
def test_batches_partition_the_frames(
    n_frames: int, batch_size: int, drop_last: bool, shuffled: bool
) -> None:
    demonstrations = numbered([0] * n_frames)
    rng = np.random.default_rng(1) if shuffled else None

    sizes, seen = [], []
    for batch in batches(demonstrations, np.arange(n_frames), batch_size, rng=rng, drop_last=drop_last):
        sizes.append(len(batch.actions))
        seen += batch.features[:, 0].astype(int).tolist()
        np.testing.assert_array_equal(batch.actions, batch.features[:, 0] % 2)

    full, rest = divmod(n_frames, batch_size)
    assert sizes == [batch_size] * full + ([rest] if rest and not drop_last else [])
    assert len(set(seen)) == len(seen)
    if not drop_last:
        assert sorted(seen) == list(range(n_frames))


@pytest.mark.parametrize("store", ["npz", "memmap"])
@pytest.mark.parametrize("batch_size", [1, 5, 7, 48, 100])
@pytest.mark.parametrize("shuffled", [True, False])
def test_streamed_batches_hold_every_frame_once(
    tmp_path: Path, rng: np.random.Generator, store: str, batch_size: int, shuffled: bool
) -> None:
    capture(tmp_path / "capture", store=store)
    replay = open_replay(tmp_path / "capture")

    epoch = list(
        stream_batches(
            replay, batch_size, ("wait", "north", "chat"), rng=rng if shuffled else None, block_frames=8
        )
    )

    assert [len(batch.actions) for batch in epoch[:-1]] == [batch_size] * (len(epoch) - 1)
    streamed = np.concatenate([np.c_[batch.features, batch.actions] for batch in epoch])
    whole = load_demonstrations(tmp_path / "capture")
    np.testing.assert_array_equal(
        np.unique(streamed, axis=0), np.unique(np.c_[whole.features, whole.actions], axis=0)
    )
    assert len(streamed) == 48


def test_a_short_last_batch_can_be_dropped_from_a_stream(tmp_path: Path) -> None:
    capture(tmp_path / "capture", store="memmap")
    replay = open_replay(tmp_path / "capture")

    epoch = list(stream_batches(replay, 20, ("wait", "north", "chat"), drop_last=True))

    assert [len(batch.actions) for batch in epoch] == [20, 20]


def test_actions_are_numbered_by_name_across_samples(tmp_path: Path) -> None:
    townlet_sample(tmp_path / "a.npz", meta={"action_lookup": {'{"kind": "wait"}': 0, '{"kind": "chat"}': 1}})
    townlet_sample(tmp_path / "b.npz", meta={"action_lookup": {'{"kind": "chat"}': 0, '{"kind": "move"}': 1}})
    manifest = write_manifest(tmp_path / "m.json", ["a.npz", "b.npz"])

    demonstrations = load_demonstrations(manifest)

    names = [demonstrations.action_names[action] for action in demonstrations.actions]
    assert demonstrations.action_names == ("wait", "chat", "move")
    assert names == ["wait", "chat", "wait", "chat", "chat", "move", "chat", "move"]
    assert demonstrations.action_mask.all()
    assert demonstrations.action_mask.shape == (8, 3)


def test_samples_tell_their_seeds_even_when_the_manifest_does_not(tmp_path: Path) -> None:
    capture(tmp_path / "capture")
    names = [path.name for path in (tmp_path / "capture").glob("*seed6*.npz")]

    demonstrations = load_demonstrations(write_manifest(tmp_path / "capture/some.json", names))

    assert demonstrations.seeds == (6,)
    assert demonstrations.n_episodes == 2


def test_frames_that_no_document_counts_are_all_gathered(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        townlet_sample(tmp_path / f"{name}.npz", 5)
    fractions = np.full((3, 2, 3, 3), 0.5, np.float32)
    townlet_sample(tmp_path / "d.npz", 3, arrays={"map": fractions})

    demonstrations = load_demonstrations(
        write_manifest(tmp_path / "m.json", [f"{name}.npz" for name in "abcd"])
    )

    assert demonstrations.features[:, 0].tolist() == pytest.approx(
        [0, 0.3, 0.6, 0.9, 1.2] * 3 + [0, 0.3, 0.6]
    )
    assert demonstrations.episode.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 3
    assert demonstrations.maps is not None
    assert demonstrations.maps.dtype == np.float32
    assert demonstrations.maps.mean(axis=(1, 2, 3)).tolist() == [0] * 15 + [0.5] * 3


@pytest.mark.parametrize("shape", [(4, 2, 5, 5), (4, 0, 0, 0)])
def test_samples_with_different_maps_do_not_mix(tmp_path: Path, shape: tuple[int, ...]) -> None:
    townlet_sample(tmp_path / "a.npz")
    townlet_sample(tmp_path / "b.npz", arrays={"map": np.zeros(shape, np.float32)})

    with pytest.raises(
        DataError, match=r"b\.npz and the recordings beside it .* Split them into datasets of one kind"
    ):
        load_demonstrations(write_manifest(tmp_path / "m.json", ["a.npz", "b.npz"]))


def test_a_recording_larger_than_memory_is_refused(tmp_path: Path) -> None:
    townlet_sample(tmp_path / "a.npz")
    townlet_sample(tmp_path / "b.npz", meta={"timesteps": 10**12})
    manifest = write_manifest(tmp_path / "m.json", ["a.npz", "b.npz"])

    with pytest.raises(DataError, match="holds 1000000000000 frames, which do not fit into memory"):
        load_demonstrations(manifest)


@pytest.mark.slow
def test_loading_holds_the_frames_once(tmp_path: Path) -> None:
    manifest = capture_long(tmp_path / "capture", 50_000)

    tracemalloc.start()
    demonstrations = load_demonstrations(manifest)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert demonstrations.maps is not None
    arrays = (
        demonstrations.features,
        demonstrations.maps,
        demonstrations.actions,
        demonstrations.action_mask,
    )
    assert peak < 1.8 * (sum(array.nbytes for array in arrays) + demonstrations.episode.nbytes)


def test_names_can_be_asked_for_in_an_order(tmp_path: Path) -> None:
    capture(tmp_path / "capture")

    asked = load_demonstrations(tmp_path / "capture", action_names=("chat", "wait", "north", "job"))

    assert asked.action_mask.shape == (48, 4)
    assert not asked.action_mask[:, 3].any()
    assert (asked.action_mask[np.arange(48), asked.actions]).all()


def test_an_action_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    capture(tmp_path / "capture")

    with pytest.raises(DataError, match="has the actions chat; expected only wait, north"):
        load_demonstrations(tmp_path / "capture", action_names=("wait", "north"))


def test_samples_of_different_layouts_do_not_mix(tmp_path: Path) -> None:
    townlet_sample(tmp_path / "a.npz")
    townlet_sample(tmp_path / "b.npz", meta={"feature_names": ["need_energy", *FEATURE_NAMES[1:]]})
    manifest = write_manifest(tmp_path / "m.json", ["a.npz", "b.npz"])

    with pytest.raises(
        DataError, match=r"b\.npz \(beside a\.npz\) .* feature 0 is 'need_energy' where 'need_hunger'"
    ):
        load_demonstrations(manifest)


def test_samples_that_do_not_name_their_episode_are_doubted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        townlet_sample(tmp_path / f"{name}.npz")
    manifest = write_manifest(tmp_path / "m.json", ["a.npz", "b.npz", {"sample": "a.npz"}])

    demonstrations = load_demonstrations(manifest)

    assert demonstrations.n_episodes == 2
    unplaced, repeated = demonstrations.warnings
    assert "2 samples do not say which town-episode they are part of" in unplaced
    assert "entries 3 name samples that earlier entries name" in repeated


def test_an_action_its_own_mask_forbids_is_refused(tmp_path: Path) -> None:
    mask = np.ones((4, 2), np.bool_)
    mask[2, 0] = False
    path = townlet_sample(tmp_path / "a.npz", arrays={"action_mask": mask})

    with pytest.raises(DataError, match="1 actions are forbidden by the mask of their own frame"):
        load_demonstrations(path)


def end_features_with(folder: Path, value: float, *, keep_checksum: bool) -> None:
    """Change the last feature of a store; without `keep_checksum` the manifest is made to agree."""
    path = folder / "features.npy"
    path.write_bytes(path.read_bytes()[:-4] + np.float32(value).tobytes())
    if not keep_checksum:
        manifest = folder / "rollout_sample_manifest.json"
        document = json.loads(manifest.read_text())
        features = np.load(path, allow_pickle=False)
        document["arrays"]["features"]["crc32"] = f"{zlib.crc32(features.tobytes()):08x}"
        manifest.write_text(json.dumps(document))


def test_a_store_that_was_changed_is_refused(tmp_path: Path) -> None:
    capture(tmp_path / "capture", store="memmap")
    end_features_with(tmp_path / "capture", 3.0, keep_checksum=True)

    with pytest.raises(DataError, match=r"features\.npy: the bytes are not those that were captured"):
        load_demonstrations(tmp_path / "capture")


def test_a_store_with_nan_features_is_refused(tmp_path: Path) -> None:
    capture(tmp_path / "capture", store="memmap")
    end_features_with(tmp_path / "capture", np.nan, keep_checksum=False)

    with pytest.raises(DataError, match="1 frames have features that are NaN or infinite"):
        load_demonstrations(tmp_path / "capture")


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_holds_at_least_one_frame(size: int) -> None:
    with pytest.raises(DataError, match=f"The batch size is {size}; expected at least 1"):
        next(batches(numbered([0]), np.arange(1), size))


def test_townlets_old_layout_is_refused_by_name(townlet_data: Path) -> None:
    samples = townlet_data / "docs/samples/replay_manifest.json"
    names = tuple(f"feature_{index}" for index in range(81))

    with pytest.raises(DataError) as refusal:
        load_demonstrations(samples, feature_names=names)

    assert "the 36-feature layout of early Townlet samples" in str(refusal.value)
    assert "expected 81 features" in str(refusal.value)


def test_samples_without_action_names_cannot_be_cloned(townlet_data: Path) -> None:
    with pytest.raises(DataError, match=r"base\.npz has no `action_lookup`, so its action ids have no names"):
        load_demonstrations(townlet_data / "docs/samples/replay_manifest.json")


def test_townlets_production_dataset_loads_as_one_action(townlet_data: Path) -> None:
    demonstrations = load_demonstrations(townlet_data / "data/bc_datasets/manifests/idle_v1.json")

    assert (len(demonstrations), demonstrations.action_names) == (400, ("wait",))
    assert demonstrations.features.shape == (400, 68)
