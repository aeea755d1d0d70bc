"""Recordings inspected, validated and split, by the service and by the commands."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recordings import capture, capture_long, townlet_sample, write_manifest
from townlet_train.cli import main
from townlet_train.data.dataset import load_demonstrations
from townlet_train.errors import DataError, ExitCode, UsageError
from townlet_train.services.replay import ReplayDatasetService

SERVICE = ReplayDatasetService()


@pytest.fixture(params=["npz", "memmap"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """One capture in either store."""
    return Path(capture(tmp_path / "capture", store=request.param).manifest)


def sentences(path: Path) -> list[str]:
    return [problem.problem for problem in SERVICE.validate(path).problems]


def test_inspection_counts_what_is_in_a_recording(recording: Path) -> None:
    found = SERVICE.inspect(recording)

    assert (found.frames, found.trajectories, found.episodes) == (48, 12, 4)
    assert (found.n_features, found.map_shape) == (5, (2, 3, 3))
    assert found.action_names == ("wait", "north", "chat")
    assert found.action_counts == {"wait": 12, "north": 12, "chat": 24}
    assert found.majority_share == 0.5
    assert found.action_entropy == pytest.approx(1.5 * math.log(2))
    assert (found.terminations, found.truncations) == (4, 8)
    assert (found.mask_violations, found.non_finite) == (0, 0)
    assert found.forced_share == 0.25  # agent 0 on odd ticks can only wait
    assert (found.episode_return_mean, found.episode_return_std) == (6, 0)
    assert (found.seeds, found.policy) == ((5, 6), "last_legal")
    assert found.layout == "the 5-feature layout of environment 'counting'"
    assert found.warnings == ()


def test_a_directory_a_manifest_and_a_sample_can_be_inspected(tmp_path: Path) -> None:
    manifest = Path(capture(tmp_path / "capture").manifest)

    frames = [
        SERVICE.inspect(path).frames
        for path in (
            manifest,
            manifest.parent,
            manifest.parent / "rollout_sample_seed5_agent1_001.npz",
        )
    ]

    assert frames == [48, 48, 3]


def test_a_sound_recording_is_valid(recording: Path) -> None:
    result = SERVICE.validate(recording)

    assert (result.valid, result.problems, result.frames) == (True, (), 48)


def test_a_split_shares_no_episode_and_loses_no_frame(recording: Path) -> None:
    result = SERVICE.split(recording, fraction=0.3, seed=3)

    train, held_out = (load_demonstrations(Path(path)) for path in (result.train, result.held_out))
    assert (result.train_episodes, result.held_out_episodes) == (3, 1)
    assert (len(train), len(held_out)) == (result.train_frames, result.held_out_frames) == (36, 12)
    ours, theirs = (set(map(tuple, part.features[:, [1, 4]].tolist())) for part in (train, held_out))
    assert ours.isdisjoint(theirs)
    assert len(ours | theirs) == 4
    assert set(held_out.seeds) <= {5, 6}
    assert len(held_out.seeds) == 1


def test_a_split_can_be_written_elsewhere(recording: Path, tmp_path: Path) -> None:
    result = SERVICE.split(recording, fraction=0.5, seed=3, output=tmp_path / "parts")

    assert Path(result.train).parent == tmp_path / "parts"
    assert len(load_demonstrations(Path(result.train))) == 24
    assert SERVICE.validate(Path(result.held_out)).valid


def test_the_same_seed_splits_the_same_way(recording: Path, tmp_path: Path) -> None:
    one, two = (
        SERVICE.split(recording, fraction=0.5, seed=8, output=tmp_path / name) for name in ("one", "two")
    )

    assert Path(one.held_out).read_bytes() == Path(two.held_out).read_bytes()


def test_a_split_is_not_written_over_unless_asked(recording: Path) -> None:
    SERVICE.split(recording, fraction=0.5, seed=1)

    with pytest.raises(UsageError, match=r"rollout_sample_train\.json exists\. Choose another --output"):
        SERVICE.split(recording, fraction=0.5, seed=2)
    again = SERVICE.split(recording, fraction=0.5, seed=2, overwrite=True)
    assert json.loads(Path(again.train).read_text())["metadata"]["split"]["seed"] == 2


def test_a_part_can_be_split_again(recording: Path) -> None:
    first = SERVICE.split(recording, fraction=0.3, seed=3)

    second = SERVICE.split(Path(first.train), fraction=0.34, seed=3)

    assert (second.train_episodes, second.held_out_episodes) == (2, 1)


@pytest.mark.parametrize("fraction", [0, 1, 1.5])
def test_a_share_outside_the_unit_interval_is_refused(recording: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="expected a number between 0 and 1"):
        SERVICE.split(recording, fraction=fraction, seed=1)


def test_one_episode_cannot_be_split(tmp_path: Path) -> None:
    manifest = Path(capture(tmp_path / "capture", ticks=4, seeds=(5,)).manifest)

    with pytest.raises(DataError, match="holds 1 episode"):
        SERVICE.split(manifest, fraction=0.5, seed=1)


def spoil(folder: Path, **changes: Any) -> Path:
    """A manifest of one good and one changed sample."""
    townlet_sample(folder / "good.npz")
    townlet_sample(folder / "bad.npz", **changes)
    return write_manifest(folder / "m.json", ["good.npz", "bad.npz"])


def test_every_problem_is_named_and_reading_goes_on(tmp_path: Path) -> None:
    mask = np.ones((4, 2), np.bool_)
    mask[0, 0] = False
    townlet_sample(tmp_path / "good.npz")
    townlet_sample(tmp_path / "nan.npz", arrays={"rewards": np.full(4, np.nan, np.float32)})
    townlet_sample(tmp_path / "dead.npz", arrays={"dones": np.array([False, True, True, True])})
    townlet_sample(tmp_path / "nameless.npz", meta={"action_lookup": None})
    townlet_sample(tmp_path / "masked.npz", arrays={"action_mask": mask})
    names = ["good", "nan", "gone", "dead", "nameless", "masked"]
    path = write_manifest(tmp_path / "m.json", [f"{name}.npz" for name in names])

    found = sentences(path)

    expected = [
        "m.json, entry 3: gone.npz does not exist",
        "m.json, entry 2: ",
        "dead.npz: 2 of 4 frames come after the agent's life ended.",
        "nameless.npz has no `action_lookup`",
        "m.json: 1 actions are forbidden by the mask of their own frame.",
    ]
    assert len(found) == len(expected)
    for sentence, part in zip(found, expected, strict=True):
        assert part in sentence
    assert SERVICE.validate(path).frames == 16


def test_a_recording_of_one_action_is_invalid(tmp_path: Path) -> None:
    path = townlet_sample(tmp_path / "a.npz", arrays={"actions": np.zeros(4, np.int64)})

    assert sentences(path) == [f"{path}: every one of 4 actions is 'wait', so there is nothing to learn."]


def test_a_changed_byte_in_a_store_is_a_problem(tmp_path: Path) -> None:
    manifest = Path(capture(tmp_path / "capture", store="memmap").manifest)
    path = manifest.parent / "maps.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x63")

    assert sentences(manifest) == [f"{path}: the bytes are not those that were captured (crc32 differs)."]


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_changed_byte_in_a_sample_is_a_problem(tmp_path: Path, suffix: str) -> None:
    manifest = Path(capture(tmp_path / "capture", compress=False).manifest)
    path = manifest.parent / f"rollout_sample_seed5_agent0_001{suffix}"
    rewrite_with_another_reward(path)

    sentence = f"{path}: the bytes are not those that were captured (sha256 differs)."
    assert sentences(manifest) == [sentence]
    with pytest.raises(DataError) as refusal:
        SERVICE.load(manifest)
    assert str(refusal.value) == f"{sentence} Copy or capture it again."


def test_a_split_keeps_the_checksums(tmp_path: Path) -> None:
    manifest = Path(capture(tmp_path / "capture").manifest)
    train = Path(SERVICE.split(manifest, fraction=0.3, seed=3, output=tmp_path / "parts").train)
    for path in manifest.parent.glob("*.npz"):
        rewrite_with_another_reward(path)

    assert len(sentences(train)) == 9
    assert "sha256 differs" in sentences(train)[0]


def rewrite_with_another_reward(path: Path) -> None:
    """Change a sample, or its JSON, into another that is sound in itself."""
    if path.suffix == ".json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": {}}))
        return
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["rewards"] = arrays["rewards"] + 1
    np.savez(path, **arrays)


def test_rejected_and_repeated_entries_are_counted(tmp_path: Path) -> None:
    townlet_sample(tmp_path / "a.npz")
    rows = [{"sample": "a.npz"}, {"sample": "a.npz"}, {"sample": "lost.npz", "accepted": False}]

    found = SERVICE.inspect(write_manifest(tmp_path / "m.json", rows))

    assert (found.rejected, found.duplicates, found.frames) == (1, 1, 4)
    assert len(found.warnings) == 2


def test_dataset_summaries_come_in_order_and_all_of_them(tmp_path: Path) -> None:
    dataset = SERVICE.build_dataset(spoil(tmp_path), batch_size=1)

    summaries = SERVICE.summarize_dataset(dataset)

    assert [summary["batch"] for summary in summaries] == [1, 2]
    assert [summary["feature_dim"] for summary in summaries] == [3, 3]


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_stream_holds_the_frames_that_loading_holds(recording: Path, shuffled: bool) -> None:
    rng = np.random.default_rng(2) if shuffled else None

    epoch = list(SERVICE.stream(recording, 10, rng))

    whole = SERVICE.load(recording)
    assert [len(batch.actions) for batch in epoch] == [10, 10, 10, 10, 8]
    streamed = np.concatenate([np.c_[batch.features, batch.actions, batch.action_mask] for batch in epoch])
    loaded = np.c_[whole.features, whole.actions, whole.action_mask]
    assert sorted(streamed.tolist()) == sorted(loaded.tolist())
    assert (streamed.tolist() == loaded.tolist()) is not shuffled


def test_a_stream_numbers_actions_by_name_across_samples(tmp_path: Path) -> None:
    townlet_sample(tmp_path / "a.npz", meta={"action_lookup": {'{"kind": "wait"}': 0, '{"kind": "chat"}': 1}})
    townlet_sample(tmp_path / "b.npz", meta={"action_lookup": {'{"kind": "chat"}': 0, '{"kind": "move"}': 1}})
    manifest = write_manifest(tmp_path / "m.json", ["a.npz", "b.npz"])

    (batch,) = SERVICE.stream(manifest, 8)

    assert batch.actions.tolist() == [0, 1, 0, 1, 1, 2, 1, 2]
    assert batch.action_mask.shape == (8, 3)


def test_a_stream_refuses_an_action_its_own_mask_forbids(tmp_path: Path) -> None:
    mask = np.ones((4, 2), np.bool_)
    mask[2, 0] = False
    path = townlet_sample(tmp_path / "a.npz", arrays={"action_mask": mask})

    with pytest.raises(DataError, match=r"the first is 'wait' in frame 2\. Capture it again"):
        list(SERVICE.stream(path, 8))


@pytest.mark.slow
def test_a_stream_needs_memory_for_a_block_and_not_for_the_recording(tmp_path: Path) -> None:
    peaks = []
    for ticks in (10_000, 60_000):
        manifest = capture_long(tmp_path / str(ticks), ticks)
        tracemalloc.start()
        n_frames = sum(
            len(batch.actions) for batch in SERVICE.stream(manifest, 256, np.random.default_rng(1))
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_frames == 4 * ticks
    assert peaks[1] < 1.5 * peaks[0]


def test_trajectory_batches_need_samples(tmp_path: Path) -> None:
    manifest = Path(capture(tmp_path / "capture", store="memmap").manifest)

    with pytest.raises(DataError, match="is a memmap store"):
        SERVICE.build_dataset(manifest)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (None, "none was named. Capture one with `townlet-train rollout capture"),
        (Path("nowhere/m.json"), "nowhere/m.json does not exist; expected a manifest"),
    ],
)
def test_a_manifest_that_is_not_there_is_a_usage_error(path: Path | None, sentence: str) -> None:
    with pytest.raises(UsageError) as refusal:
        SERVICE.resolve_manifest(path)

    assert sentence in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.USAGE


def test_a_recording_passes_its_check(recording: Path) -> None:
    assert SERVICE.check(recording.parent) == recording


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("thesis.txt", b"To be, or not to be", "thesis.txt is a str; expected a list of samples"),
        ("m.json", b'{"a": 1}', "m.json is an object without `samples`"),
        ("m.json", b'["lost.npz"]', "m.json, entry 1: lost.npz does not exist"),
        ("a.npz", b"no zip", "a.npz is not an npz file"),
    ],
)
def test_what_is_no_recording_fails_its_check(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError) as refusal:
        SERVICE.check(path)

    assert sentence in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.FAILED


@pytest.mark.parametrize("inside", ["", "rollout_sample_manifest.json"])
def test_a_capture_that_was_set_aside_is_named_with_the_command_that_puts_it_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    capture(tmp_path / "my capture")
    set_aside = (tmp_path / "my capture").rename(tmp_path / ".my capture.abc.replaced")

    code = main(["replay", "inspect", str(tmp_path / "my capture" / inside)])

    assert code == ExitCode.USAGE
    assert f"put it back with: mv '{set_aside}' '{tmp_path}/my capture'" in capsys.readouterr().err
    assert SERVICE.inspect(set_aside).frames == 48


WRONG_VALUES: list[Any] = [None, "x", "", -1, 0, 1.5, True, [], [[]], {}, 10**30]


def leaves(document: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document, of lists only the first items."""
    yield keys
    inner = list(document.items()) if isinstance(document, dict) else []
    inner += list(enumerate(document[:1])) if isinstance(document, list) else []
    for key, value in inner:
        yield from leaves(value, (*keys, key))


def replaced(document: Any, keys: tuple[Any, ...], value: Any) -> Any:
    if not keys:
        return value
    copy = document.copy()
    copy[keys[0]] = replaced(document[keys[0]], keys[1:], value)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store", "name"),
    [
        ("memmap", "rollout_sample_manifest.json"),
        ("npz", "rollout_sample_manifest.json"),
        ("npz", "rollout_sample_seed5_agent0_001.json"),
    ],
)
def test_no_value_in_a_document_ends_in_anything_but_a_refusal(
    tmp_path: Path, rng: np.random.Generator, store: str, name: str
) -> None:
    recording = Path(capture(tmp_path / "capture", store=store).manifest)
    path = recording.parent / name
    document = json.loads(path.read_text())
    refusals: list[str] = []

    for keys in leaves(document):
        for value in rng.permutation(np.array([*WRONG_VALUES, None], object))[:4]:
            path.write_text(json.dumps(replaced(document, keys, value)))
            try:
                SERVICE.inspect(recording)
                list(SERVICE.stream(recording, 16))
            except DataError as refusal:
                refusals.append(str(refusal))
            SERVICE.validate(recording)

    assert len(refusals) > 30
    assert all(str(recording.parent) in sentence for sentence in refusals)


@pytest.mark.parametrize("command", ["inspect", "validate", "split"])
def test_commands_print_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    capture(tmp_path / "capture")

    code = main(["replay", command, str(tmp_path / "capture"), "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code == ExitCode.OK
    assert document["schema_version"] == "1.0.0"
    assert document["path"] == str(tmp_path / "capture/rollout_sample_manifest.json")


def test_an_invalid_recording_ends_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoil(tmp_path, arrays={"rewards": None})

    code = main(["replay", "validate", str(path), "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code == ExitCode.FAILED
    assert document["valid"] is False
    assert "bad.npz lacks rewards" in document["problems"][0]["problem"]


@pytest.mark.parametrize("command", ["inspect", "validate", "split"])
def test_a_path_that_does_not_exist_ends_with_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code = main(["replay", command, str(tmp_path / "gone"), "--json"])

    captured = capsys.readouterr()
    assert code == ExitCode.USAGE
    assert json.loads(captured.out)["error"]["exit_code"] == 3
    assert "gone does not exist" in captured.err


def test_an_object_array_ends_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = townlet_sample(tmp_path / "a.npz", arrays={"rewards": np.array([{}] * 4)})

    assert main(["replay", "inspect", str(path)]) == ExitCode.FAILED
    assert "holds Python objects, which are never unpickled" in capsys.readouterr().err


def test_townlets_idle_dataset_is_found_wanting(townlet_data: Path) -> None:
    found = sentences(townlet_data / "data/bc_datasets/manifests/idle_v1.json")

    assert any("173 of 200 frames come after the agent's life ended" in sentence for sentence in found)
    assert any("every one of 400 actions is 'wait'" in sentence for sentence in found)


def test_townlets_replay_samples_are_described_by_their_layout(townlet_data: Path) -> None:
    found = SERVICE.inspect(townlet_data / "docs/samples/replay_manifest.json")

    assert found.layout == (
        "the 36-feature layout of early Townlet samples (20 base features, 16 social placeholders)"
    )
    assert found.baseline["sample_count"] == 3
    assert found.conflict["rivalry_max_max"] == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["observation_hybrid_sample.npz", "observation_hybrid_compiled.npz"])
def test_observations_alone_are_no_recording(townlet_data: Path, name: str) -> None:
    assert main(["replay", "inspect", str(townlet_data / "docs/samples" / name)]) == ExitCode.FAILED
