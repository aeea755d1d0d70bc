"""Minari datasets become demonstrations, and captures become datasets that Minari itself reads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests import recordings
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.replay import SampleReplay, open_replay
from townlet_train.data.storage import Sample
from townlet_train.data.trajectory import Trajectory
from townlet_train.errors import DataError, ExitCode, UsageError
from townlet_train.services.minari import export_minari, import_minari
from townlet_train.services.recordings import recording_stats
from townlet_train.services.replay import ReplayDatasetService
from townlet_train.services.rollout import capture_as_configured

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
    name: str,
    observation: spaces.Space[Any],
    action: spaces.Space[Any],
    *,
    seeds: tuple[int | None, int | None] = (40, 41),
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
                seed=seeds[number],
                observations=np.stack(seen)
                if isinstance(observation, spaces.Box | spaces.Discrete)
                else seen,
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


LARGEST = 2**64 - 1  # Minari seeds episodes with 64 random bits where nobody says


@pytest.mark.parametrize(
    ("seeds", "known"), [((None, None), ()), ((7, 7), (7,)), ((LARGEST, None), (LARGEST,))]
)
def test_an_episode_stays_one_whatever_its_seed(
    tmp_path: Path, seeds: tuple[int | None, int | None], known: tuple[int, ...]
) -> None:
    dataset_of("made/up-v0", OBSERVATIONS["box"][0], spaces.Discrete(4), seeds=seeds)
    import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    loaded = ReplayDatasetService().load(tmp_path / "recording")
    assert (loaded.n_episodes, loaded.seeds, loaded.warnings) == (2, known, ())
    found = recording_stats(tmp_path / "recording", per_episode=True)
    assert [(row.frames, row.episode_return) for row in found.per_episode] == [(4, 6), (6, 15)]
    parts = ReplayDatasetService().split(tmp_path / "recording", fraction=0.5, seed=1)
    assert recording_stats(Path(parts.train), held_out=Path(parts.held_out)).shared_episodes == 0


REFUSED: dict[str, tuple[spaces.Space[Any], spaces.Space[Any], str]] = {
    "several choices": (
        OBSERVATIONS["box"][0], spaces.MultiDiscrete([2, 3]),
        r"actions of made/up-v0 are MultiDiscrete.*recordings hold indices",
    ),
    "pairs": (
        OBSERVATIONS["box"][0], spaces.MultiBinary(2),
        r"actions of made/up-v0 are MultiBinary.*recordings hold indices",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_recorded_is_refused_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    observation, action, sentence = REFUSED[kind]
    dataset_of("made/up-v0", observation, action)
    with pytest.raises(DataError, match=sentence):
        import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    assert not (tmp_path / "recording").exists()


BOXES: dict[str, spaces.Box] = {
    "bounded": spaces.Box(np.float32([-1, -2]), np.float32([1, 3])),
    "of two axes": spaces.Box(-1, 1, (2, 3), np.float64),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
}


@pytest.mark.parametrize("kind", BOXES)
def test_vectors_become_demonstrations_frame_for_frame(tmp_path: Path, kind: str) -> None:
    space = BOXES[kind]
    dataset = dataset_of("made/up-v0", OBSERVATIONS["box"][0], space)
    import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    assert ReplayDatasetService().validate(tmp_path / "recording").problems == ()
    loaded = ReplayDatasetService().load(tmp_path / "recording")
    expected = np.concatenate([e.actions for e in dataset.iterate_episodes()]).reshape(10, -1)
    np.testing.assert_array_equal(loaded.actions, expected.astype(np.float32))
    assert loaded.action_low == tuple(space.low.ravel().tolist())
    assert loaded.action_high == tuple(space.high.ravel().tolist())


def test_vectors_come_back_from_a_round_trip_with_their_bounds(tmp_path: Path) -> None:
    recordings.capture_vectors(tmp_path / "capture")
    exported = export_minari(tmp_path / "capture", "pendulum/random-v0")
    dataset = minari.load_dataset("pendulum/random-v0")
    assert dataset.action_space == gymnasium.make("Pendulum-v1").action_space
    assert all(dataset.action_space.contains(row) for e in dataset.iterate_episodes() for row in e.actions)
    import_minari("pendulum/random-v0", tmp_path / "again")
    first, again = (ReplayDatasetService().load(tmp_path / name) for name in ("capture", "again"))
    assert (again.action_low, again.action_high) == (first.action_low, first.action_high) == ((-2,), (2,))
    assert len(first) - len(again) == exported.left_out == 2
    assert recording_stats(tmp_path / "capture", held_out=tmp_path / "again").shared_frames == len(again)


def test_a_vector_beyond_the_bounds_of_its_space_is_refused(tmp_path: Path) -> None:
    import h5py

    dataset_of("made/up-v0", OBSERVATIONS["box"][0], BOXES["bounded"])
    for wrong in (5, np.nan):
        with h5py.File(tmp_path / "minari/made/up-v0/data/main_data.hdf5", "a") as file:
            file["episode_1/actions"][2, 0] = wrong
        with pytest.raises(
            DataError, match=r"made/up-v0, episode 1: it has actions that are no numbers or outside"
        ):
            import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    assert not (tmp_path / "recording").exists()


def torn(data: Path) -> None:
    (data / "main_data.hdf5").write_bytes((data / "main_data.hdf5").read_bytes()[:4000])


def with_nan(data: Path) -> None:
    import h5py

    with h5py.File(data / "main_data.hdf5", "a") as file:
        file["episode_1/observations"][2, 0] = np.nan


def with_a_fifth_action(data: Path) -> None:
    import h5py

    with h5py.File(data / "main_data.hdf5", "a") as file:
        file["episode_1/actions"][0] = 4


def without_a_step(data: Path) -> None:
    import h5py

    with h5py.File(data / "main_data.hdf5", "a") as file:
        episode = file["episode_1"]
        for name in ("actions", "rewards", "terminations", "truncations"):
            del episode[name]
            episode[name] = np.zeros(0, np.int64)


def without_its_last_observation(data: Path) -> None:
    change_array(data, "observations", lambda seen: seen[:-1])


def with_few_terminations(data: Path) -> None:
    change_array(data, "terminations", lambda ended: ended[:4])


def with_wide_observations(data: Path) -> None:
    change_array(data, "observations", lambda seen: np.hstack([seen, seen]))


def change_array(data: Path, name: str, change: Callable[[Any], Any]) -> None:
    import h5py

    with h5py.File(data / "main_data.hdf5", "a") as file:
        whole = file[f"episode_1/{name}"][()]
        del file[f"episode_1/{name}"]
        file[f"episode_1/{name}"] = change(whole)


def with_a_word_as_seed(data: Path) -> None:
    import h5py

    with h5py.File(data / "main_data.hdf5", "a") as file:
        file["episode_1"].attrs["seed"] = "forty"


def with_a_life_before_its_episode(data: Path) -> None:
    import h5py

    with h5py.File(data / "main_data.hdf5", "a") as file:
        told = {"env": 0, "index": 0, "agent_id": "a", "start_tick": -9}
        file["episode_1"].attrs.update({f"townlet_train/{name}": value for name, value in told.items()})


def with_metadata(**changed: Any) -> Callable[[Path], None]:
    """Metadata of a whole dataset as its export did not write them."""

    def harm(data: Path) -> None:
        metadata = json.loads((data / "metadata.json").read_text())
        (data / "metadata.json").write_text(json.dumps(metadata | changed))

    return harm


def told(**said: Any) -> Callable[[Path], None]:
    """Metadata in which our export says this."""
    return with_metadata(townlet_train=json.dumps(said))


NOT_OURS = "made/up-v0: its metadata `townlet_train` is not what an export writes. Export it again"


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (without_a_step, "made/up-v0, episode 1: it has no step"),
        (with_metadata(townlet_train="made by hand"), NOT_OURS),
        (with_metadata(townlet_train={"n_agents": 1}), NOT_OURS),
        (told(n_agents="many"), NOT_OURS),
        (told(n_agents=0), NOT_OURS),
        (told(feature_names=5), NOT_OURS),
        (told(feature_names=[1, 2, 3]), NOT_OURS),
        (told(action_names=["a", "b", "c", "a"]), NOT_OURS),
        (told(feature_names=["a", "b"]), "made/up-v0: .* names 2 features, its space has 3. Export it again"),
        (told(action_names=["go"]), "made/up-v0: .* names 1 actions, its space has 4. Export it again"),
        (told(env_id=7), NOT_OURS),
        (with_a_word_as_seed, "episode 1: its metadata cannot be read: .*'forty'. Get or make it again"),
        (with_a_life_before_its_episode, "made/up-v0, episode 1: its metadata `townlet_train` is not what"),
        (without_its_last_observation, "episode 1: its arrays do not belong together: index 6 is out of"),
        (with_few_terminations, r"episode 1: its arrays do not belong together: .*\(4,\).* Get or make"),
        (
            with_wide_observations,
            "episode 1: it has an observation of 6 numbers, its space has 3. Get or make",
        ),
        (torn, r"made/up-v0 cannot be read to its end: .*Get or make it again"),
        (with_nan, "made/up-v0, episode 1: it has observations or rewards that are NaN"),
        (with_a_fifth_action, "made/up-v0, episode 1: it has actions outside the 4 of its space"),
    ],
)
def test_a_damaged_dataset_is_refused_in_a_sentence(
    tmp_path: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    dataset_of("made/up-v0", OBSERVATIONS["box"][0], spaces.Discrete(4))
    harm(tmp_path / "minari/made/up-v0/data")
    with pytest.raises(DataError, match=sentence):
        import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    assert not [*tmp_path.glob("*recording*")]


def test_who_made_a_dataset_may_be_any_value(tmp_path: Path) -> None:
    dataset_of("made/up-v0", OBSERVATIONS["box"][0], spaces.Discrete(4))
    with_metadata(algorithm_name=7)(tmp_path / "minari/made/up-v0/data")
    import_minari("made/up-v0", tmp_path / "recording", env="Made-v0")
    assert ReplayDatasetService().validate(tmp_path / "recording").problems == ()


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
    lives = lives_of(tmp_path / "capture")
    assert (exported.frames, exported.left_out) == (
        44,
        4,
    )  # what was seen at a death in mid-episode nobody says
    for episode, life in zip(dataset.iterate_episodes(), lives, strict=True):
        n_steps = life.n_steps if life.truncated[-1] else life.n_steps - 1
        assert len(episode.observations) == n_steps + 1
        np.testing.assert_array_equal(episode.observations[: life.n_steps], life.features)
        np.testing.assert_array_equal(episode.actions, life.actions[:n_steps])
        np.testing.assert_array_equal(episode.rewards, life.rewards[:n_steps])
        assert episode.truncations[-1]
        assert all(dataset.observation_space.contains(row) for row in episode.observations)


def lives_of(recording: Path) -> list[Trajectory]:
    """Every life of a recording of samples."""
    replay = open_replay(recording)
    assert isinstance(replay, SampleReplay)
    return [sample.trajectory for sample in replay.samples()]


def test_an_episode_of_gymnasium_is_exported_to_its_last_observation_and_flag(tmp_path: Path) -> None:
    capture_cartpole(tmp_path / "capture")
    export_minari(tmp_path / "capture", "cart/random-v0")
    env = gymnasium.make("CartPole-v1")
    whole = 0
    for episode in minari.load_dataset("cart/random-v0").iterate_episodes():
        if not episode.terminations[-1]:
            continue
        whole += 1
        env.reset(seed=1)
        env.unwrapped.state = episode.observations[-2].astype(np.float64)  # type: ignore[attr-defined]
        seen, _, ended, _, _ = env.step(episode.actions[-1])
        assert ended
        np.testing.assert_allclose(episode.observations[-1], seen, rtol=1e-5)
    assert whole > 5


def capture_cartpole(output: Path) -> None:
    """300 ticks of two CartPoles, whose episodes take about 20."""
    config = RunConfig.model_validate({"env": "CartPole-v1", "rollout": {"ticks": 300, "towns": 2}})
    capture_as_configured(config, output=output, policy="random")


def test_a_round_trip_keeps_every_episode_its_return_seed_and_ends(tmp_path: Path) -> None:
    capture_cartpole(tmp_path / "capture")
    exported = export_minari(tmp_path / "capture", "cart/random-v0")
    import_minari("cart/random-v0", tmp_path / "again")
    first, again = (recording_stats(tmp_path / name, per_episode=True) for name in ("capture", "again"))
    assert exported.left_out == first.frames - again.frames == first.cut_off == again.cut_off == 2
    whole = [[row for row in found.per_episode if not row.cut_off] for found in (first, again)]
    assert whole[0] == whole[1]
    assert first.return_quantiles == again.return_quantiles
    lives = zip(lives_of(tmp_path / "capture"), lives_of(tmp_path / "again"), strict=True)
    for one, other in ((one, other) for one, other in lives if one.ended[-1]):
        assert one.final_features is not None
        assert other.final_features is not None
        np.testing.assert_array_equal(one.final_features, other.final_features)
        assert (one.terminated[-1], one.truncated[-1]) == (other.terminated[-1], other.truncated[-1])


def test_lives_of_one_town_episode_belong_together_after_a_round_trip(tmp_path: Path) -> None:
    recordings.capture(tmp_path / "capture")
    export_minari(tmp_path / "capture", "town/counted-v0")
    import_minari("town/counted-v0", tmp_path / "again")
    first, again = (
        ReplayDatasetService().load(tmp_path / name, with_maps=False) for name in ("capture", "again")
    )
    assert (again.feature_names, again.action_names, again.seeds, again.n_episodes) == (
        first.feature_names,
        first.action_names,
        first.seeds,
        first.n_episodes,
    )
    rows = {
        row.tobytes() + mask.tobytes() for row, mask in zip(first.features, first.action_mask, strict=True)
    }
    found = {r.tobytes() + m.tobytes() for r, m in zip(again.features, again.action_mask, strict=True)}
    assert found <= rows
    assert len(again) == 44


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
        assert any((tmp_path / "minari/town").glob(".long-v0.*.partial/data/main_data.hdf5"))
        raise end

    monkeypatch.setattr(SampleReplay, "samples", ending)
    with pytest.raises((KeyboardInterrupt, DataError)):
        export_minari(tmp_path / "capture", "town/long-v0")
    assert not minari.list_local_datasets()
    assert not [*(tmp_path / "minari/town").iterdir()]
    monkeypatch.setattr(SampleReplay, "samples", whole)
    assert export_minari(tmp_path / "capture", "town/long-v0").episodes > 128


KILLED = """
import os, signal, sys
from itertools import islice
from pathlib import Path
from townlet_train.data.replay import SampleReplay
from townlet_train.services.minari import export_minari

whole = SampleReplay.samples

def killed(replay):
    yield from islice(whole(replay), 150)
    os.kill(os.getpid(), signal.SIGKILL)

SampleReplay.samples = killed
export_minari(Path(sys.argv[1]), "town/long-v0")
"""


def test_a_killed_export_leaves_nothing_that_lists_and_the_next_one_names_what_it_left(
    tmp_path: Path,
) -> None:
    recordings.capture(tmp_path / "capture", ticks=120, seeds=tuple(range(6)))
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "capture")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert any((tmp_path / "minari/town").glob(".long-v0.*.partial/data/main_data.hdf5"))
    assert not minari.list_local_datasets()
    exported = export_minari(tmp_path / "capture", "town/long-v0")
    assert minari.load_dataset("town/long-v0").total_episodes == exported.episodes > 128
    assert "was left by a capture that was killed; delete it." in exported.warnings[-1]


@pytest.mark.parametrize("name", ["no name!", "town/versionless", "../elsewhere-v0", ""])
@pytest.mark.parametrize("command", ["import", "export"])
def test_a_bad_name_at_the_command_line_is_bad_usage_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    recordings.capture(tmp_path / "capture")
    arguments = {
        "import": [name, "--output", str(tmp_path / "new")],
        "export": [str(tmp_path / "capture"), "--dataset", name],
    }
    assert main(["minari", command, *arguments[command]]) == ExitCode.USAGE
    assert f"{name!r} is no name of a Minari dataset; expected letters, digits" in one_line(capsys)
    assert {path.name for path in tmp_path.iterdir()} <= {"capture", "minari"}
    assert not minari.list_local_datasets()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_bad_input_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recordings.capture(tmp_path / "capture")
    recordings.capture(tmp_path / "store", store="memmap")
    export_minari(tmp_path / "capture", "town/counted-v0")
    with pytest.raises(UsageError, match=r"already\. Choose another name"):
        export_minari(tmp_path / "capture", "town/counted-v0")
    with pytest.raises(DataError, match=r"replay convert \S+/store --store npz --output DIR"):
        export_minari(tmp_path / "store", "town/other-v0")
    for name in ("no name!", "town/versionless", "../elsewhere-v0"):
        with pytest.raises(UsageError, match=r"is no name of a Minari dataset; expected letters, digits"):
            export_minari(tmp_path / "capture", name)
        with pytest.raises(UsageError, match=r"is no name of a Minari dataset; expected letters, digits"):
            import_minari(name, tmp_path / "x")
    assert main(["minari", "import", "gone-v0", "--output", str(tmp_path / "x")]) == ExitCode.USAGE
    assert "no Minari dataset 'gone-v0' on this machine. Known: town/counted-v0" in capsys.readouterr().err
    assert main(["minari", "export", str(tmp_path / "nowhere"), "--dataset", "a-v0"]) == ExitCode.USAGE
    assert (
        main(["minari", "import", "town/counted-v0", "--output", str(tmp_path / "store")]) == ExitCode.USAGE
    )


@pytest.mark.torch
def test_bc_learns_from_an_imported_dataset(tmp_path: Path) -> None:
    pytest.importorskip("torch")
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
