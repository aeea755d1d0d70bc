"""Minari datasets become demonstrations, and captures become datasets that Minari itself reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from tests import recordings
from townlet_train.cli import main
from townlet_train.data.replay import SampleReplay, open_replay
from townlet_train.data.storage import Sample
from townlet_train.errors import DataError, ExitCode, UsageError
from townlet_train.services.minari import export_minari, import_minari
from townlet_train.services.replay import ReplayDatasetService

pytest.importorskip("h5py")
minari = pytest.importorskip("minari")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`eval_env` is set to None"),
    pytest.mark.filterwarnings("ignore:env_spec is None"),
]


@pytest.fixture(autouse=True)
def own_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def dataset_of(
    name: str, observation: spaces.Space[Any], action: spaces.Space[Any], *, seeds: bool = True
) -> Any:
    """Two episodes of 4 and 6 random steps; the first ends, the second is cut."""
    observation.seed(1)
    action.seed(1)
    buffers = []
    for number, length in enumerate((4, 6)):
        last = np.arange(length) == length - 1
        seen = [observation.sample() for _ in range(length + 1)]
        if isinstance(observation, spaces.Dict):
            seen = {key: np.stack([each[key] for each in seen]) for key in observation}  # type: ignore[assignment]
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                seed=40 + number if seeds else None,
                observations=seen if isinstance(seen, dict) else np.stack(seen),
                actions=np.stack([action.sample() for _ in range(length)]),
                rewards=np.arange(length, dtype=np.float64),
                terminations=last & (number == 0),
                truncations=last & (number == 1),
                infos={},
            )
        )
    return minari.create_dataset_from_buffers(
        name, buffers, observation_space=observation, action_space=action, algorithm_name="dice", author="we",
        author_email="none", code_permalink="none", description="none", requirements=["numpy"],
    )  # fmt: skip


OBSERVATIONS: dict[str, tuple[spaces.Space[Any], int]] = {
    "box": (spaces.Box(-1, 1, (3,), np.float32), 3),
    "image": (spaces.Box(0, 255, (2, 3), np.uint8), 6),
    "discrete": (spaces.Discrete(5), 5),
    "dict": (spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(3)}), 5),
}


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_a_dataset_becomes_demonstrations_frame_for_frame(tmp_path: Path, kind: str) -> None:
    space, n_features = OBSERVATIONS[kind]
    dataset = dataset_of("made/up-v0", space, spaces.Discrete(4, start=2))
    imported = import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    assert (imported.episodes, imported.frames, imported.left_out) == (2, 10, 0)
    service = ReplayDatasetService()
    assert service.validate(tmp_path / "recording").problems == ()
    loaded = service.load(tmp_path / "recording")
    assert loaded.features.shape == (10, n_features)
    expected = [
        spaces.flatten(
            space, {k: v[i] for k, v in e.observations.items()} if kind == "dict" else e.observations[i]
        )
        for e in dataset.iterate_episodes()
        for i in range(len(e))
    ]
    np.testing.assert_array_equal(loaded.features, np.stack(expected).astype(np.float32))
    actions = np.concatenate([e.actions for e in dataset.iterate_episodes()])
    np.testing.assert_array_equal(loaded.actions, actions - 2)
    assert (loaded.n_episodes, loaded.seeds, loaded.warnings) == (2, (40, 41), ())


def test_episodes_without_seeds_are_counted_one_by_one(tmp_path: Path) -> None:
    dataset_of("made/up-v0", OBSERVATIONS["box"][0], spaces.Discrete(4), seeds=False)
    import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    loaded = ReplayDatasetService().load(tmp_path / "recording")
    assert (loaded.n_episodes, loaded.seeds) == (2, ())


def test_vectors_as_actions_are_refused(tmp_path: Path) -> None:
    dataset_of("made/up-v0", OBSERVATIONS["box"][0], spaces.Box(-1, 1, (2,), np.float32))
    with pytest.raises(DataError, match=r"actions of made/up-v0 are Box.*recordings hold indices"):
        import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    assert not (tmp_path / "recording").exists()


def test_a_dataset_that_names_no_environment_is_refused_unless_one_is_named(tmp_path: Path) -> None:
    dataset_of("made/up-v0", OBSERVATIONS["box"][0], spaces.Discrete(4))
    with pytest.raises(UsageError, match=r"made/up-v0 does not say .* Name one with --env"):
        import_minari("made/up-v0", tmp_path / "recording")
    assert not (tmp_path / "recording").exists()
    assert import_minari("made/up-v0", tmp_path / "recording", env="Made-v0").env == "Made-v0"


def test_a_dataset_that_minari_does_not_load_is_told_in_its_words(tmp_path: Path) -> None:
    dataset_of("made/up-v0", OBSERVATIONS["box"][0], spaces.Discrete(4))
    (tmp_path / "minari/made/up-v0/data/metadata.json").unlink()
    with pytest.raises(UsageError, match="Minari does not load 'made/up-v0': No data found in"):
        import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")


def test_a_capture_becomes_a_dataset_that_minari_lists_and_reads(tmp_path: Path) -> None:
    recordings.capture(tmp_path / "capture")
    exported = export_minari(tmp_path / "capture", "town/counted-v0")
    assert "town/counted-v0" in minari.list_local_datasets()
    dataset = minari.load_dataset("town/counted-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (exported.episodes, exported.frames)
    replay = open_replay(tmp_path / "capture")
    assert isinstance(replay, SampleReplay)
    lives = [sample.trajectory for sample in replay.samples() if sample.trajectory.n_steps > 1]
    assert exported.frames + exported.left_out == 48
    for episode, life in zip(dataset.iterate_episodes(), lives, strict=True):
        np.testing.assert_array_equal(episode.observations, life.features)
        np.testing.assert_array_equal(episode.actions, life.actions[:-1])
        np.testing.assert_array_equal(episode.rewards, life.rewards[:-1])
        assert episode.truncations[-1]
        assert all(dataset.observation_space.contains(row) for row in episode.observations)


def test_what_was_exported_comes_back_with_its_names_and_masks(tmp_path: Path) -> None:
    recordings.capture(tmp_path / "capture")
    export_minari(tmp_path / "capture", "town/counted-v0")
    import_minari("town/counted-v0", tmp_path / "again")
    first, again = (
        ReplayDatasetService().load(tmp_path / name, with_maps=False) for name in ("capture", "again")
    )
    assert (again.feature_names, again.action_names, again.seeds) == (
        first.feature_names,
        first.action_names,
        first.seeds,
    )
    rows = {
        row.tobytes() + mask.tobytes() for row, mask in zip(first.features, first.action_mask, strict=True)
    }
    assert {r.tobytes() + m.tobytes() for r, m in zip(again.features, again.action_mask, strict=True)} <= rows


def test_many_episodes_are_written_a_few_at_a_time(tmp_path: Path) -> None:
    recordings.capture(tmp_path / "capture", ticks=120, seeds=tuple(range(6)))
    exported = export_minari(tmp_path / "capture", "town/long-v0")
    assert exported.episodes > 128
    assert minari.load_dataset("town/long-v0").total_episodes == exported.episodes


@pytest.mark.parametrize("end", [KeyboardInterrupt, DataError("torn")])
def test_an_export_that_ends_early_leaves_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException] | Exception
) -> None:
    recordings.capture(tmp_path / "capture", ticks=120, seeds=tuple(range(6)))
    whole = SampleReplay.samples

    def ending(replay: SampleReplay) -> Iterator[Sample]:
        yield from islice(whole(replay), 150)
        assert "town/long-v0" in minari.list_local_datasets()
        raise end

    monkeypatch.setattr(SampleReplay, "samples", ending)
    with pytest.raises((KeyboardInterrupt, DataError)):
        export_minari(tmp_path / "capture", "town/long-v0")
    assert not minari.list_local_datasets()
    monkeypatch.setattr(SampleReplay, "samples", whole)
    assert export_minari(tmp_path / "capture", "town/long-v0").episodes > 128


def test_bad_input_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recordings.capture(tmp_path / "capture")
    recordings.capture(tmp_path / "store", store="memmap")
    export_minari(tmp_path / "capture", "town/counted-v0")
    with pytest.raises(UsageError, match=r"already\. Choose another name"):
        export_minari(tmp_path / "capture", "town/counted-v0")
    with pytest.raises(DataError, match="is a store of ticks; expected samples"):
        export_minari(tmp_path / "store", "town/other-v0")
    with pytest.raises(UsageError, match="is no name of a Minari dataset"):
        export_minari(tmp_path / "capture", "no name!")
    assert main(["minari", "import", "gone-v0", "--output", str(tmp_path / "x")]) == ExitCode.USAGE
    assert "no Minari dataset 'gone-v0' on this machine. Known: town/counted-v0" in capsys.readouterr().err
    assert main(["minari", "export", str(tmp_path / "nowhere"), "--dataset", "a-v0"]) == ExitCode.USAGE
    assert (
        main(["minari", "import", "town/counted-v0", "--output", str(tmp_path / "store")]) == ExitCode.USAGE
    )


@pytest.mark.torch
def test_bc_learns_from_an_imported_dataset(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from townlet_train.config import RunConfig
    from townlet_train.orchestrator import run_strategy

    dataset_of("made/up-v0", spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2))
    imported = import_minari("made/up-v0", tmp_path / "recording", env="CartPole-v1")
    result = run_strategy(
        "bc",
        {"manifest": imported.recording, "n_epochs": 2, "evaluate": False},
        config=RunConfig.model_validate({"env": "CartPole-v1"}),
        run_dir=tmp_path / "run",
    )
    assert result.checkpoint is not None
    assert result.model_dump()["n_train"] + result.model_dump()["n_val"] == 10
