"""The store for large captures: what was captured comes back, damage is noticed, memory stays flat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recordings import capture
from townlet_train.data.block import Block
from townlet_train.data.memmap import Store
from townlet_train.data.replay import open_replay
from townlet_train.errors import DataError


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return Path(capture(tmp_path / "capture", store="memmap").manifest)


def open_store(manifest: Path) -> Store:
    replay = open_replay(manifest)
    assert isinstance(replay, Store)
    return replay


def frames(blocks: list[Block], *columns: int) -> list[tuple[float, ...]]:
    """Some features of every frame, with its action and reward, in order."""
    return [
        (*block.features[row, list(columns)].tolist(), int(block.actions[row]), float(block.rewards[row]))
        for block in blocks
        for row in range(len(block.actions))
    ]


def test_the_store_and_the_samples_hold_the_same_frames(tmp_path: Path) -> None:
    store = open_replay(Path(capture(tmp_path / "store", store="memmap").manifest))
    samples = open_replay(Path(capture(tmp_path / "samples", store="npz").manifest))

    def rows(blocks: Any) -> list[Any]:
        return sorted(
            (
                block.features[row].tolist(),
                block.maps[row].tolist(),
                block.action_mask[row].tolist(),
                int(block.actions[row]),
                float(block.rewards[row]),
                bool(block.terminated[row]),
                bool(block.truncated[row]),
            )
            for block in blocks
            for row in range(len(block.actions))
        )

    assert rows(store.blocks(n_frames=8)) == rows(samples.blocks())


@pytest.mark.parametrize("n_frames", [1, 4, 20, 1000])
def test_blocks_of_any_size_hold_every_frame_once(manifest: Path, n_frames: int) -> None:
    store = open_store(manifest)

    blocks = [block.copy() for block in store.blocks(n_frames=n_frames)]

    assert sum(len(block.actions) for block in blocks) == store.n_frames == 48
    seen = frames(blocks, 4, 0, 1, 2)
    assert [row[:4] for row in seen] == [
        (tick // 6, tick % 6, env, agent) for tick in range(12) for env in range(2) for agent in range(2)
    ]


def test_lives_end_where_agents_die_and_episodes_where_they_are_cut(manifest: Path) -> None:
    block = next(open_store(manifest).blocks())
    place = {
        (int(block.features[row, 1]), int(block.features[row, 2]), tick): row
        for row in range(48)
        for tick in [row // 4]
    }

    def numbers(column: Any, env: int, agent: int) -> list[int]:
        values = [int(column[place[env, agent, tick]]) for tick in range(12)]
        return [sorted(set(values)).index(value) for value in values]

    assert numbers(block.life, 0, 0) == [0] * 6 + [1] * 6
    assert numbers(block.life, 0, 1) == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert len(set(block.life.tolist())) == 12
    assert numbers(block.episode, 1, 0) == [0] * 6 + [1] * 6
    episodes = block.episode.reshape(12, 2, 2)
    assert (episodes[:, :, 0] == episodes[:, :, 1]).all()
    assert len(set(block.episode.tolist())) == 4


def test_life_numbers_do_not_depend_on_the_size_of_blocks(manifest: Path) -> None:
    store = open_store(manifest)

    whole = np.concatenate([block.life for block in store.blocks()])
    parts = np.concatenate([block.life for block in store.blocks(n_frames=4)])

    np.testing.assert_array_equal(whole, parts)


def test_random_order_shuffles_blocks_and_loses_none(manifest: Path, rng: np.random.Generator) -> None:
    store = open_store(manifest)

    order = [tuple(block.features[0, [4, 0]]) for block in store.blocks(n_frames=4, rng=rng)]

    assert order != sorted(order)
    assert sorted(order) == [(tick // 6, tick % 6) for tick in range(12)]


def test_blocks_reuse_the_same_memory(manifest: Path) -> None:
    blocks = open_store(manifest).blocks(n_frames=4)

    first, second = next(blocks), next(blocks)

    assert np.shares_memory(first.features, second.features)


def test_the_manifest_can_leave_maps_out(tmp_path: Path) -> None:
    result = capture(tmp_path / "capture", store="memmap", with_maps=False)

    block = next(open_store(Path(result.manifest)).blocks())

    assert block.maps is None
    assert not (tmp_path / "capture/maps.npy").exists()


def test_any_numpy_can_map_the_arrays(manifest: Path) -> None:
    features = np.load(manifest.parent / "features.npy", mmap_mode="r", allow_pickle=False)

    assert features.shape == (12, 2, 2, 5)
    assert features[:6, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def edit(manifest: Path, change: Any) -> None:
    document = json.loads(manifest.read_text())
    change(document)
    manifest.write_text(json.dumps(document))


def put(manifest: Path, keys: tuple[str | int, ...], value: Any) -> None:
    """Write `value` where `keys` lead."""
    document = json.loads(manifest.read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    manifest.write_text(json.dumps(document))


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def shorten(manifest: Path) -> None:
    path = manifest.parent / "features.npy"
    path.write_bytes(path.read_bytes()[:-8])


def replace_rewards(manifest: Path) -> None:
    path = manifest.parent / "rewards.npy"
    header = np.lib.format.header_data_from_array_1_0(np.zeros((12, 2, 2), np.int32))
    with path.open("r+b") as stream:
        np.lib.format.write_array_header_1_0(stream, header)


DAMAGE: list[tuple[str, Any, str]] = [
    ("short file", shorten, "bytes; the manifest says"),
    ("lost file", lambda m: (m.parent / "actions.npy").unlink(), "array 'actions' is missing"),
    ("other dtype", replace_rewards, "holds int32 (12, 2, 2); the manifest says <f4 (12, 2, 2)"),
    ("no arrays", lambda m: edit(m, lambda d: d["arrays"].pop("rewards")), "lacks the arrays rewards"),
    (
        "foreign array",
        lambda m: edit(m, lambda d: d["arrays"].update(extra=d["arrays"]["rewards"])),
        "names arrays no store has: extra",
    ),
    (
        "no seed",
        lambda m: edit(m, lambda d: d["episodes"][0].pop("seed")),
        "the key `episodes.0.seed` is missing",
    ),
    ("gap", lambda m: edit(m, lambda d: d["episodes"][1].update(start=7)), "environment 0 do not follow on"),
    ("cut", lambda m: edit(m, lambda d: d["episodes"].pop()), "the episodes do not cover all 12 ticks"),
    (
        "names",
        lambda m: edit(m, lambda d: d["metadata"]["feature_names"].pop()),
        "expected float32 (12, 2, 2, 4)",
    ),
    ("version", lambda m: edit(m, lambda d: d["metadata"].update(format_version=2)), "has format version 2"),
    ("selection", lambda m: edit(m, lambda d: d.update(selected=[99])), "`selected` names episode 99 of 4"),
    *(
        (
            f"{'.'.join(map(str, keys))} = {value!r}",
            lambda m, keys=keys, value=value: put(m, keys, value),
            sentence,
        )
        for keys, value, sentence in [
            (("episodes", 0, "env"), "0", "`episodes.0.env` is '0'; it should be a valid integer"),
            (("episodes", 0, "complete"), 1, "`episodes.0.complete` is 1; it should be a valid boolean"),
            (("episodes", 0, "seed"), "a", "`episodes.0.seed` is 'a'; it should be a valid integer"),
            (("episodes",), [], "`episodes` is []; "),
            (("metadata",), [], "`metadata` is []; it should be a valid object"),
            (("metadata", "n_agents"), "x", "`metadata.n_agents` is 'x'; it should be a valid integer"),
            (
                ("metadata", "n_agents"),
                0,
                "`metadata.n_agents` is 0; it should be greater than or equal to 1",
            ),
            (("metadata", "n_agents"), 3, "expected float32 (12, 2, 3, 5)"),
            (("metadata", "policy"), 3, "`metadata.policy` is 3; it should be a valid string"),
            (
                ("metadata", "action_names"),
                ["wait", "wait", "chat"],
                "expected each once, 'wait' is there more than once",
            ),
            (("selected",), [-1], "`selected.0` is -1; it should be greater than or equal to 0"),
            (("selected",), [True], "`selected.0` is True; it should be a valid integer"),
            (("selected",), [], "`selected` is []; "),
            (
                ("arrays", "actions", "crc32"),
                None,
                "`arrays.actions.crc32` is None; it should be a valid string",
            ),
            (("arrays", "actions", "shape"), [12], "the manifest says <i8 (12,)"),
            (("arrays",), [], "`arrays` is []; it should be a valid object"),
        ]
    ),
    (
        "no crc32",
        lambda m: edit(m, lambda d: d["arrays"]["maps"].pop("crc32")),
        "`arrays.maps.crc32` is missing",
    ),
]


@pytest.mark.parametrize(("damage", "sentence"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_a_damaged_store_is_refused_by_name(manifest: Path, damage: Any, sentence: str) -> None:
    damage(manifest)

    with pytest.raises(DataError) as refusal:
        open_store(manifest)

    assert sentence in str(refusal.value)
    assert str(manifest.parent) in str(refusal.value)


def test_no_damage_ends_in_anything_but_a_refusal(manifest: Path, rng: np.random.Generator) -> None:
    whole = {path: path.read_bytes() for path in sorted(manifest.parent.iterdir())}
    refusals: list[str] = []

    for _ in range(300):
        path = list(whole)[rng.integers(len(whole))]
        content = bytearray(whole[path])
        content[rng.integers(min(len(content), 200))] = rng.integers(256)
        path.write_bytes(content)
        try:
            list(open_store(manifest).blocks())
        except DataError as refusal:
            refusals.append(str(refusal))
        path.write_bytes(whole[path])

    assert len(refusals) > 100
    assert all(str(manifest.parent) in sentence for sentence in refusals)


def test_a_flipped_bit_is_found_by_the_checksum(manifest: Path) -> None:
    flip_last_byte(manifest.parent / "features.npy")

    assert list(open_store(manifest).check_sums()) == [
        f"{manifest.parent / 'features.npy'}: the bytes are not those that were captured (crc32 differs)."
    ]


def test_a_flag_that_is_neither_true_nor_false_is_refused(manifest: Path) -> None:
    path = manifest.parent / "truncated.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")

    with pytest.raises(DataError, match=r"truncated\.npy holds bytes that are neither True nor False"):
        list(open_store(manifest).blocks())


def test_an_action_nobody_named_is_refused(manifest: Path) -> None:
    path = manifest.parent / "actions.npy"
    path.write_bytes(path.read_bytes()[:-8] + np.int64(9).tobytes())

    with pytest.raises(DataError, match=r"actions\.npy holds action ids outside 0\.\.2"):
        list(open_store(manifest).blocks())


def test_what_a_killed_capture_left_is_never_read_as_data(manifest: Path) -> None:
    leftover = manifest.parent.rename(manifest.parent.with_name(".capture.x.partial"))

    for path in (leftover, leftover / manifest.name):
        with pytest.raises(DataError, match="was left by a capture that was killed"):
            open_replay(path)


def test_opening_a_capture_directory_opens_its_manifest(manifest: Path) -> None:
    replay = open_replay(manifest.parent)

    assert isinstance(replay, Store)
    assert replay.path == manifest
