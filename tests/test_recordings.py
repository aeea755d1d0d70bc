"""Recordings of any size are counted, compared, written anew and merged; what cannot be is refused in words."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests import recordings
from townlet_train.cli import main
from townlet_train.data.fingerprints import count_repeats
from townlet_train.data.layout import Layout
from townlet_train.data.plan import CapturePlan
from townlet_train.data.replay import SampleReplay, open_replay
from townlet_train.data.store_writer import StoreWriter
from townlet_train.errors import DataError, ExitCode, UsageError
from townlet_train.services.recordings import convert_recording, merge_recordings, recording_stats
from townlet_train.services.replay import ReplayDatasetService

Store = Literal["npz", "memmap"]
N_FEATURES, N_ACTIONS, N_ENVS, N_AGENTS, EPISODE_TICKS = 20, 5, 50, 10, 100


def wide_store(directory: Path, n_frames: int, *, alike: bool = False) -> Path:
    """The manifest of a store of that many random frames: 50 environments, 10 agents, episodes of 100 ticks."""
    rng = np.random.default_rng(1)
    layout = Layout(
        tuple(f"feature_{index}" for index in range(N_FEATURES)),
        tuple(f"action_{index}" for index in range(N_ACTIONS)),
        (), 0, "made-up",
    )  # fmt: skip
    n_ticks, shape = n_frames // (N_ENVS * N_AGENTS), (N_ENVS, N_AGENTS)
    plan = CapturePlan(
        layout, tuple(range(N_ENVS)), N_AGENTS, n_ticks, "wide", with_maps=False, compress=False
    )
    directory.mkdir()
    writer = StoreWriter(directory, plan)
    for tick in range(n_ticks):
        features = rng.random((*shape, N_FEATURES), np.float32)
        writer.append_decision(
            features=np.zeros_like(features) if alike else features,
            maps=np.zeros(0),
            action_mask=np.ones((*shape, N_ACTIONS), np.bool_),
            actions=np.zeros(shape, np.int64) if alike else rng.integers(0, N_ACTIONS, shape),
        )
        cut = np.full(shape, (tick + 1) % EPISODE_TICKS == 0)
        rewards = np.ones(shape, np.float32)
        writer.append_outcome(
            rewards=rewards, terminated=np.zeros_like(cut), truncated=cut, final_features={}
        )
    about = {
        "env_id": "made-up", "policy": "dice", "ticks": n_ticks, "n_envs": N_ENVS, "n_agents": N_AGENTS,
        "feature_names": list(layout.feature_names), "action_names": list(layout.action_names),
        "map_channels": [], "map_size": 0,
    }  # fmt: skip
    return writer.finish(about)


def peak(work: object) -> int:
    """The most memory that Python and NumPy held at once while `work` was called, bytes."""
    tracemalloc.start()
    work()  # type: ignore[operator]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def crc32_of(manifest: Path) -> dict[str, str]:
    return {name: row["crc32"] for name, row in json.loads(manifest.read_text())["arrays"].items()}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["inspect", "validate", "split"])
def test_a_million_frames_take_no_more_memory_than_fifty_thousand(tmp_path: Path, what: str) -> None:
    service = ReplayDatasetService()
    few, many = wide_store(tmp_path / "few", 50_000), wide_store(tmp_path / "many", 1_000_000)

    def work(manifest: Path) -> None:
        if what == "split":
            service.split(manifest, fraction=0.2, seed=1, overwrite=True)
        else:
            getattr(service, what)(manifest)

    work(few)
    assert peak(lambda: work(many)) < 1.5 * peak(lambda: work(few)) < 40e6


@pytest.mark.slow
def test_a_million_frames_are_counted_and_merged_in_little_memory(tmp_path: Path) -> None:
    few, many = wide_store(tmp_path / "few", 50_000), wide_store(tmp_path / "many", 1_000_000)
    found = recording_stats(many)
    assert (found.frames, found.episodes, found.repeated_frames) == (1_000_000, 1000, 0)
    digests = 8 * 1_000_000
    assert peak(lambda: recording_stats(many)) < peak(lambda: recording_stats(few)) + 4 * digests
    other = wide_store(tmp_path / "other", 1_000_000)
    small = peak(lambda: merge_recordings([few, wide_store(tmp_path / "f", 50_000)], tmp_path / "small"))
    assert peak(lambda: merge_recordings([many, other], tmp_path / "large")) < 1.5 * small


@pytest.mark.slow
def test_a_conversion_holds_a_little_of_every_life_and_none_of_the_frames(tmp_path: Path) -> None:
    few, many = wide_store(tmp_path / "few", 50_000), wide_store(tmp_path / "many", 300_000)

    def there_and_back(manifest: Path, folder: Path) -> None:
        convert_recording(manifest, folder / "npz", "npz")
        convert_recording(folder / "npz", folder / "memmap", "memmap")

    more_lives = (300_000 - 50_000) // EPISODE_TICKS
    small = peak(lambda: there_and_back(few, tmp_path / "small"))
    assert (
        peak(lambda: there_and_back(many, tmp_path / "large")) < small + 4_000 * more_lives
    )  # the frames are 24 MB more


def test_what_is_held_of_every_sample_is_small(tmp_path: Path) -> None:
    convert_recording(wide_store(tmp_path / "store", 50_000), tmp_path / "npz", "npz")
    assert len(open_replay(tmp_path / "npz").seeds) == N_ENVS  # what is loaded once
    replay = open_replay(tmp_path / "npz")
    assert isinstance(replay, SampleReplay)
    tracemalloc.start()
    n_lives = len(replay.headers)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert n_lives == 500
    assert held < 500 * n_lives


def test_passes_over_the_digests_find_what_one_pass_finds(tmp_path: Path) -> None:
    alike = open_replay(wide_store(tmp_path / "alike", 5_000, alike=True))
    random = open_replay(wide_store(tmp_path / "random", 5_000))
    assert count_repeats(alike).within == 4_999
    assert count_repeats(random, random) == (0, 5_000)
    assert count_repeats(random, random, pass_frames=700) == (0, 5_000)
    assert count_repeats(random, alike, pass_frames=700) == (0, 0)


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_stats_are_those_of_the_frames(tmp_path: Path, store: str) -> None:
    recordings.capture(tmp_path / "capture", store=store)
    found = recording_stats(tmp_path / "capture", per_episode=True)
    loaded = ReplayDatasetService().load(tmp_path / "capture")
    distinct = {
        (row.tobytes(), int(action)) for row, action in zip(loaded.features, loaded.actions, strict=True)
    }
    if loaded.maps is not None:
        distinct = {
            (row.tobytes(), seen.tobytes(), int(action))
            for row, seen, action in zip(loaded.features, loaded.maps, loaded.actions, strict=True)
        }
    assert (found.frames, found.episodes) == (48, 4)
    assert found.repeated_frames == 48 - len(distinct)
    assert sum(found.action_counts.values()) == 48
    assert sum(row.frames for row in found.per_episode) == 48
    returns = [row.episode_return for row in found.per_episode]
    assert found.return_quantiles["0.5"] == pytest.approx(float(np.median(returns)))
    assert (found.non_finite, found.mask_violations, found.cut_off) == ({}, 0, 0)
    spread = np.ptp(loaded.features, axis=0)
    assert len(found.constant) == int(np.count_nonzero(spread == 0))


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_fragments_that_the_end_of_a_capture_cut_off_are_counted_apart(tmp_path: Path, store: str) -> None:
    recordings.capture(tmp_path / "whole", store=store)
    recordings.capture(tmp_path / "cut", store=store, ticks=15)
    whole, cut = (recording_stats(tmp_path / name, per_episode=True) for name in ("whole", "cut"))
    assert (whole.episodes, whole.cut_off, cut.episodes, cut.cut_off) == (4, 0, 6, 2)
    assert cut.return_quantiles == whole.return_quantiles
    assert (cut.episode_frames_min, cut.episode_frames_max) == (12, 12)
    assert sorted(row.frames for row in cut.per_episode if row.cut_off) == [6, 6]
    told = ReplayDatasetService().inspect(tmp_path / "cut")
    assert (told.episodes, told.cut_off, told.episode_return_mean) == (6, 2, 6)


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_a_recording_without_a_whole_episode_has_no_returns(tmp_path: Path, store: str) -> None:
    recordings.capture(tmp_path / "capture", store=store, ticks=4)
    found = recording_stats(tmp_path / "capture")
    assert (found.episodes, found.cut_off, found.return_quantiles) == (2, 2, {})
    assert (found.episode_frames_min, found.episode_frames_max) == (None, None)
    told = ReplayDatasetService().inspect(tmp_path / "capture")
    assert (told.episode_return_mean, told.episode_return_max, told.frames) == (None, None, 16)


def test_merged_captures_of_equal_seeds_keep_their_episodes_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        recordings.capture(tmp_path / name)
    merged = merge_recordings([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    one, both = (recording_stats(tmp_path / name) for name in ("one", "both"))
    assert (merged.episodes, both.episodes) == (8, 8)
    assert both.return_quantiles == one.return_quantiles


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_what_was_seen_last_outlives_conversion_merge_and_split(tmp_path: Path, store: str) -> None:
    recordings.capture(tmp_path / "one", store=store, ticks=15)
    recordings.capture(tmp_path / "two", store=store, ticks=15, seeds=(7,))
    merge_recordings([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    part = Path(ReplayDatasetService().split(tmp_path / "both", fraction=0.4, seed=1).train)
    if store == "memmap":
        assert [*open_replay(part).check_sums()] == []
        convert_recording(tmp_path / "both", tmp_path / "npz", "npz")
        part = tmp_path / "npz"
    replay = open_replay(part)
    assert isinstance(replay, SampleReplay)
    lives = [sample.trajectory for sample in replay.samples()]
    assert any(life.truncated[-1] for life in lives)
    for life in lives:
        assert (life.final_features is not None) == bool(life.truncated[-1])
        if life.final_features is not None:
            assert life.final_features[0] == 6  # the tick an episode is over
            np.testing.assert_array_equal(life.final_features[1:3], life.features[-1][1:3])


def test_a_damaged_array_of_what_was_seen_last_is_told(tmp_path: Path) -> None:
    recordings.capture(tmp_path / "capture", store="memmap")
    array = np.lib.format.open_memmap(tmp_path / "capture/final_features.npy", "r+")
    array[0, 0, 0] = 99
    array.flush()
    [problem] = ReplayDatasetService().validate(tmp_path / "capture").problems
    assert "final_features.npy: the bytes are not those that were captured" in problem.problem


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ({"shape": [4, 2, 4]}, r"holds float32 \(4, 2, 5\); the manifest says <f4 \(4, 2, 4\)"),
        ({"episodes": [0, 1, 2]}, r"holds float32 \(4, 2, 5\); expected float32 \(3, 2, 5\)"),
        ({"episodes": [0, 1, 2, 9]}, "`final_features` names episode 9 of 4"),
        ({"file": "gone.npy"}, "'final_features' is missing"),
    ],
)
def test_a_manifest_that_is_wrong_about_what_was_seen_last_is_refused(
    tmp_path: Path, harm: dict[str, object], sentence: str
) -> None:
    path = Path(recordings.capture(tmp_path / "capture", store="memmap").manifest)
    document = json.loads(path.read_text())
    document["final_features"] |= harm
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=sentence):
        open_replay(path)


def spoilt(directory: Path, store: str, *, not_finite: bool) -> Path:
    """A recording of 2 environments, 6 ticks: two illegal actions, a repeated frame, two values that are not finite."""
    layout = Layout(("hunger", "energy"), ("wait", "north"), (), 0, "made-up")
    plan = CapturePlan(layout, (7, 8), 1, 6, "spoilt", with_maps=False, compress=False)
    features = np.random.default_rng(1).random((6, 2, 1, 2), np.float32)
    actions = np.zeros((6, 2, 1), np.int64)
    mask = np.ones((6, 2, 1, 2), np.bool_)
    if not_finite:
        features[2, 1, 0, 1], features[5, 0, 0, 1] = np.nan, -np.inf
    actions[3], mask[3, ..., 1] = 1, False
    features[4, 0] = features[1, 1]
    original = directory.with_name("original")
    original.mkdir(parents=True)
    writer = StoreWriter(original, plan)
    for tick in range(6):
        writer.append_decision(
            features=features[tick], maps=np.zeros(0), action_mask=mask[tick], actions=actions[tick]
        )
        cut = np.full((2, 1), tick == 5)
        rewards = np.ones((2, 1), np.float32)
        writer.append_outcome(
            rewards=rewards, terminated=np.zeros_like(cut), truncated=cut, final_features={}
        )
    about = {
        "env_id": "made-up", "policy": "dice", "ticks": 6, "n_envs": 2, "n_agents": 1,
        "feature_names": ["hunger", "energy"], "action_names": ["wait", "north"], "map_channels": [], "map_size": 0,
    }  # fmt: skip
    writer.finish(about)
    if store == "memmap":
        return original
    convert_recording(original, directory, "npz")
    return directory


@pytest.mark.parametrize(("store", "not_finite"), [("npz", False), ("memmap", False), ("memmap", True)])
def test_what_is_wrong_with_frames_is_counted(tmp_path: Path, store: str, *, not_finite: bool) -> None:
    path = spoilt(tmp_path / "spoilt", store, not_finite=not_finite)
    stats, seen = recording_stats(path), ReplayDatasetService().inspect(path)
    assert (stats.frames, stats.non_finite) == (12, {"energy": 2} if not_finite else {})
    assert (stats.mask_violations, stats.repeated_frames) == (2, 1)
    assert stats.repeated_share == pytest.approx(1 / 12)
    assert (seen.frames, seen.mask_violations, seen.non_finite) == (12, 2, 2 * not_finite)
    assert stats.action_counts == seen.action_counts == {"wait": 10, "north": 2}


def test_a_sample_with_values_that_are_not_finite_is_refused_by_its_name(tmp_path: Path) -> None:
    features = np.ones((4, 3), np.float32)
    features[2, 1] = np.nan
    sample = recordings.townlet_sample(tmp_path / "sample.npz", arrays={"features": features})
    for count in (recording_stats, ReplayDatasetService().inspect):
        with pytest.raises(DataError, match=r"sample\.npz: array 'features' has 1 values that are NaN"):
            count(sample)
    [problem] = ReplayDatasetService().validate(sample).problems
    assert "1 values that are NaN" in problem.problem


def test_a_held_out_part_of_a_split_shares_no_episode_and_the_recording_itself_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings.capture(tmp_path / "capture")
    parts = ReplayDatasetService().split(tmp_path / "capture", fraction=0.5, seed=1)
    assert recording_stats(Path(parts.train), held_out=Path(parts.held_out)).shared_episodes == 0
    code = main(["replay", "stats", parts.train, "--held-out", str(tmp_path / "capture"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == ExitCode.WARNINGS
    assert document["shared_episodes"] == parts.train_episodes
    assert document["shared_frames"] >= parts.train_frames
    assert "is not held out" in document["warnings"][0]


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_recordings_of_different_environments_have_nothing_to_share(tmp_path: Path, store: str) -> None:
    """`wide_store` is of environment made-up and has seed 5, as the other capture has."""
    recordings.capture(tmp_path / "counted", store=store)
    wide_store(tmp_path / "wide", 5_000)
    with pytest.raises(
        DataError, match=r"wide differ in environment \(counting and made-up\); expected the same"
    ):
        recording_stats(tmp_path / "counted", held_out=tmp_path / "wide")


def test_a_store_that_went_to_samples_and_back_is_the_same_to_the_byte(tmp_path: Path) -> None:
    captured = recordings.capture(tmp_path / "store", store="memmap")
    samples = convert_recording(tmp_path / "store", tmp_path / "samples", "npz")
    again = convert_recording(tmp_path / "samples", tmp_path / "again", "memmap")
    assert (samples.frames, samples.episodes, samples.seeds) == (48, 4, (5, 6))
    assert crc32_of(Path(again.manifest)) == crc32_of(Path(captured.manifest))
    first, last = (json.loads(Path(path).read_text()) for path in (captured.manifest, again.manifest))
    assert first["episodes"] == last["episodes"]
    for path in (samples.manifest, again.manifest):
        assert ReplayDatasetService().validate(Path(path)).problems == ()


@pytest.mark.parametrize(("store", "other"), [("npz", "memmap"), ("memmap", "npz")])
def test_there_and_back_every_file_is_the_same(tmp_path: Path, store: Store, other: Store) -> None:
    recordings.capture(tmp_path / "first", store=store)
    convert_recording(tmp_path / "first", tmp_path / "there", other)
    convert_recording(tmp_path / "there", tmp_path / "back", store)
    first, back = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "back")
    )
    assert back == first


def test_converted_samples_are_those_that_a_capture_writes(tmp_path: Path) -> None:
    recordings.capture(tmp_path / "store", store="memmap")
    recordings.capture(tmp_path / "npz", store="npz")
    convert_recording(tmp_path / "store", tmp_path / "converted", "npz")
    for path in (tmp_path / "npz").glob("*.npz"):
        assert (tmp_path / "converted" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("store", ["npz", "memmap"])
def test_a_merged_recording_holds_the_frames_of_both(tmp_path: Path, store: str) -> None:
    recordings.capture(tmp_path / "one", seeds=(5, 6), store=store)
    recordings.capture(tmp_path / "two", seeds=(7,), store=store)
    merged = merge_recordings([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    assert (merged.frames, merged.episodes, merged.seeds, merged.warnings) == (72, 6, (5, 6, 7), ())
    service = ReplayDatasetService()
    assert service.validate(tmp_path / "both").problems == ()
    parts = [service.load(tmp_path / name) for name in ("one", "two", "both")]
    rows = [sorted(row.tobytes() for row in part.features) for part in parts]
    assert sorted(rows[0] + rows[1]) == rows[2]


def test_merging_recordings_of_equal_seeds_is_a_warning(tmp_path: Path) -> None:
    for name in ("one", "two"):
        recordings.capture(tmp_path / name, store="memmap")
    merged = merge_recordings([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    assert merged.warnings[0].startswith("2 seeds are in more than one of the recordings, 5 the first")
    with pytest.raises(DataError, match="Seed 5 is there more than once"):
        convert_recording(tmp_path / "both", tmp_path / "samples", "npz")
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize("through", ["one", "earlier"])
def test_a_merge_never_replaces_the_samples_it_names(tmp_path: Path, through: str) -> None:
    for number, name in enumerate(("one", "two", "three")):
        recordings.capture(tmp_path / name, seeds=(10 + number,))
    merge_recordings([tmp_path / "one", tmp_path / "two"], tmp_path / "earlier")
    before = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    with pytest.raises(UsageError, match=r"one holds .*\.npz, which is merged .*Choose another --output"):
        merge_recordings([tmp_path / through, tmp_path / "three"], tmp_path / "one", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == before


def test_what_cannot_be_merged_or_converted_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    recordings.capture(tmp_path / "store", store="memmap")
    recordings.capture(tmp_path / "longer", store="memmap", ticks=18)
    recordings.capture(tmp_path / "samples")
    foreign = recordings.townlet_sample(tmp_path / "sample.npz")
    part = ReplayDatasetService().split(tmp_path / "samples", fraction=0.5, seed=1).train
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"differ in ticks \(12 and 18\)"):
        merge_recordings([tmp_path / "store", tmp_path / "longer"], out)
    with pytest.raises(UsageError, match=r"is a store and .* holds samples"):
        merge_recordings([tmp_path / "store", tmp_path / "samples"], out)
    with pytest.raises(UsageError, match=r"store is named more than once; expected recordings that differ"):
        merge_recordings([tmp_path / "store", tmp_path / "store"], out)
    with pytest.raises(DataError, match="is no capture of townlet-train"):
        merge_recordings([foreign, tmp_path / "samples"], out)
    with pytest.raises(DataError, match="does not say at which ticks"):
        convert_recording(foreign, out, "memmap")
    with pytest.raises(DataError, match=r"expected all\. Convert the whole capture"):
        convert_recording(Path(part), out, "memmap")
    with pytest.raises(UsageError, match="of kind npz already"):
        convert_recording(tmp_path / "samples", out, "npz")
    with pytest.raises(UsageError, match="already holds"):
        convert_recording(tmp_path / "samples", tmp_path / "store", "memmap")
    assert not out.exists()


BAD = {
    "no recording": (["replay", "stats", "nowhere"], ExitCode.USAGE, "nowhere does not exist"),
    "no held-out one": (["replay", "stats", "c", "--held-out", "x"], ExitCode.USAGE, "x does not exist"),
    "no store": (
        ["replay", "convert", "c", "--output", "o"], ExitCode.USAGE,
        "Error: Missing option '--store'. Choose from: npz, memmap. See: townlet-train replay convert --help\n",
    ),
    "another store": (
        ["replay", "convert", "c", "--output", "o", "--store", "hdf5"], ExitCode.USAGE, "'hdf5'",
    ),
    "only one": (["replay", "merge", "c", "--output", "o"], ExitCode.USAGE, "One recording was named"),
    "twice the same": (
        ["replay", "merge", "c", "c/rollout_sample_manifest.json", "--output", "o"], ExitCode.USAGE,
        "c is named more than once",
    ),
    "no manifest": (["replay", "stats", "empty"], ExitCode.FAILED, "holds no *_manifest.json"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recordings.capture(tmp_path / "c")
    (tmp_path / "empty").mkdir()
    arguments, code, sentence = BAD[kind]
    assert main(arguments) == code
    assert sentence in capsys.readouterr().err
