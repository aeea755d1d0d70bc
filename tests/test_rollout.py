"""Capture: it lands whole or not at all, says what happened, and is the same again from the same seeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import CountingEnv, LastLegalPolicy
from tests.recordings import capture
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.dataset import load_demonstrations
from townlet_train.data.landing import check_room
from townlet_train.data.storage import load_sample
from townlet_train.envs.protocol import Observation
from townlet_train.envs.streams import policy_uniforms, stream
from townlet_train.errors import DataError, ExitCode, Interrupted, TownletTrainError, UsageError
from townlet_train.services import TrainingServices
from townlet_train.services.replay import ReplayDatasetService
from townlet_train.services.rollout import (
    RolloutCaptureService,
    capture_as_configured,
    populated,
)

STORES = ("npz", "memmap")


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class Greedy(LastLegalPolicy):
    """Chats whether or not it may."""

    name = "greedy"

    def act(self, observation: Observation, uniforms: Any) -> Any:
        return np.full(uniforms.shape, 2)


class Idle(Greedy):
    name = "idle"

    def act(self, observation: Observation, uniforms: Any) -> Any:
        return np.zeros(uniforms.shape, np.int64)


@pytest.mark.parametrize("store", STORES)
def test_a_capture_reports_what_happened(tmp_path: Path, store: str) -> None:
    result = capture(tmp_path / "capture", store=store)

    assert (result.frames, result.ticks, result.towns, result.agents) == (48, 12, 2, 2)
    assert (result.episodes, result.complete_episodes, result.terminations) == (4, 4, 4)
    assert result.seeds == (5, 6)
    assert result.action_counts == {"wait": 12, "north": 12, "chat": 24}
    assert result.events == {"chat_success": 24}
    assert result.illegal_actions == 0
    # Agent 0 gains 1 on each even tick, 3 in all; agent 1 gains 2 a tick, but -1 when it dies: 9. The mean is 6.
    assert result.mean_episode_return == 6
    assert result.reward_mean == 1
    assert result.bytes == sum(len(part) for part in content(tmp_path / "capture").values())
    assert result.warnings == ()
    assert Path(result.manifest).is_file()


@pytest.mark.parametrize("store", STORES)
def test_the_same_seeds_give_the_same_bytes(tmp_path: Path, store: str) -> None:
    for name in ("one", "two"):
        capture(tmp_path / name, store=store)

    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_every_life_is_a_sample_of_its_own(tmp_path: Path) -> None:
    result = capture(tmp_path / "capture")

    manifest = json.loads(Path(result.manifest).read_text())
    rows = {row["sample"]: row["frame_count"] for row in manifest["samples"]}
    assert rows == {
        f"rollout_sample_seed{seed}_agent{agent}_{life:03d}.npz": 6 if agent == 0 else 3
        for seed in (5, 6)
        for agent, lives in ((0, 2), (1, 4))
        for life in range(1, lives + 1)
    }
    third = load_sample(tmp_path / "capture/rollout_sample_seed6_agent1_003.npz")
    assert third.metadata["episode"] == {"env": 1, "index": 1, "seed": 6, "start_tick": 0}
    assert third.trajectory.terminated.tolist() == [False, False, True]
    fourth = load_sample(tmp_path / "capture/rollout_sample_seed6_agent1_004.npz")
    assert fourth.metadata["episode"]["start_tick"] == 3
    assert fourth.trajectory.truncated.tolist() == [False, False, True]
    assert fourth.trajectory.log_probs is None
    assert fourth.metadata["placeholder_arrays"] == ["old_log_probs", "value_preds"]


def test_metrics_lie_beside_the_samples(tmp_path: Path) -> None:
    capture(tmp_path / "capture", prefix="night")

    metrics = json.loads((tmp_path / "capture/night_metrics.json").read_text())

    assert metrics["metadata"]["policy"] == "last_legal"
    assert metrics["samples"]["night_seed5_agent0_001.npz"]["reward_sum"] == 3
    assert set(metrics["samples"]) == {path.name for path in (tmp_path / "capture").glob("*.npz")}


@pytest.mark.parametrize("store", STORES)
def test_a_capture_may_stop_in_the_middle_of_an_episode(tmp_path: Path, store: str) -> None:
    result = capture(tmp_path / "capture", ticks=8, store=store)

    demonstrations = load_demonstrations(tmp_path / "capture")

    assert (result.episodes, result.complete_episodes) == (4, 2)
    assert len(demonstrations) == 32
    assert sorted(np.unique(demonstrations.episode, return_counts=True)[1].tolist()) == [4, 4, 12, 12]


def test_long_lives_outgrow_the_first_buffer(tmp_path: Path) -> None:
    env = CountingEnv(n_envs=1, episode_ticks=150)

    RolloutCaptureService().capture(
        env, LastLegalPolicy(), ticks=400, seeds=[1], output=tmp_path / "capture", compress=False
    )

    demonstrations = load_demonstrations(tmp_path / "capture")
    keys = demonstrations.features[:, [4, 0, 2]]
    expected = [(tick // 150, tick % 150, agent) for tick in range(400) for agent in range(2)]
    assert sorted(map(tuple, keys.tolist())) == sorted(expected)


def test_maps_can_be_left_out(tmp_path: Path) -> None:
    capture(tmp_path / "capture", with_maps=False)

    assert load_demonstrations(tmp_path / "capture").maps is None


def test_uniforms_of_a_seed_do_not_depend_on_its_neighbours_or_on_chunks() -> None:
    alone = np.stack(list(islice(policy_uniforms([3], (2,)), 150)))[:, 0]
    among = np.stack(list(islice(policy_uniforms([1, 3, 9], (2,)), 150)))[:, 1]

    np.testing.assert_array_equal(alone, among)
    np.testing.assert_array_equal(alone, stream(3, "policy").random((150, 2)))


@pytest.mark.parametrize("store", STORES)
def test_an_interrupted_capture_leaves_nothing(tmp_path: Path, store: str) -> None:
    def stop(done: int, total: int) -> None:
        if done == 9:
            raise Interrupted("Stopped by a test.")

    with pytest.raises(Interrupted):
        capture(tmp_path / "capture", store=store, report=stop)

    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_last_tick(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    capture(tmp_path / "capture", report=lambda done, total: seen.append((done, total)))

    assert seen == [(tick, 12) for tick in range(1, 13)]


def test_overwriting_replaces_an_earlier_capture_whole(tmp_path: Path) -> None:
    capture(tmp_path / "capture", store="memmap")

    capture(tmp_path / "capture", store="npz", overwrite=True)

    assert not (tmp_path / "capture/features.npy").exists()
    assert len(load_demonstrations(tmp_path / "capture")) == 48
    assert [path.name for path in tmp_path.iterdir()] == ["capture"]


@pytest.mark.parametrize("store", STORES)
def test_what_a_split_wrote_beside_a_capture_goes_with_it(tmp_path: Path, store: str) -> None:
    """A part of a part, too; they name what is about to be gone."""
    capture(tmp_path / "capture", store=store)
    service = ReplayDatasetService()
    train = Path(service.split(tmp_path / "capture", fraction=0.5, seed=1).train)
    service.split(train, fraction=0.5, seed=1)

    capture(tmp_path / "capture", store="npz", seeds=(8, 9), overwrite=True)

    assert not train.exists()
    assert len(list((tmp_path / "capture").glob("*.json"))) == 12 + 2


def test_a_part_of_another_recording_is_no_part_of_a_capture(tmp_path: Path) -> None:
    for name in ("capture", "other"):
        capture(tmp_path / name)
    ReplayDatasetService().split(tmp_path / "other", fraction=0.5, seed=1, output=tmp_path / "capture")
    before = content(tmp_path / "capture")
    with pytest.raises(UsageError, match=r"holds rollout_sample_held_out\.json, which no capture wrote"):
        capture(tmp_path / "capture", overwrite=True)
    assert content(tmp_path / "capture") == before


def test_a_capture_that_fails_keeps_the_one_it_was_to_replace(tmp_path: Path) -> None:
    capture(tmp_path / "capture")
    before = content(tmp_path / "capture")

    def stop(done: int, total: int) -> None:
        raise Interrupted("Stopped by a test.")

    with pytest.raises(Interrupted):
        capture(tmp_path / "capture", overwrite=True, report=stop)

    assert content(tmp_path / "capture") == before


def test_an_idle_policy_is_called_a_stub(tmp_path: Path) -> None:
    result = RolloutCaptureService().capture(
        CountingEnv(), Idle(), ticks=6, seeds=[1, 2], output=tmp_path / "capture"
    )

    (warning,) = result.warnings
    assert warning.startswith("capture_rollout_stub_policy provider=idle: ")


def test_actions_against_the_mask_are_counted_and_warned_of(tmp_path: Path) -> None:
    result = RolloutCaptureService().capture(
        CountingEnv(), Greedy(), ticks=6, seeds=[1, 2], output=tmp_path / "capture"
    )

    assert result.illegal_actions == 12
    assert result.warnings == ("12 actions were taken although their mask forbade them.",)


def test_a_full_disk_is_said_before_the_first_tick(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The capture takes 1000000000\.0 GB and .* GB free\. Ask for fewer"):
        check_room(tmp_path / "not/yet/there", 10**18)


def run_on(tmp_path: Path, **changes: Any) -> None:
    options: dict[str, Any] = {"ticks": 6, "seeds": [1, 2], "output": tmp_path / "capture"} | changes
    env = CountingEnv(n_agents=options.pop("n_agents", 2))
    RolloutCaptureService().capture(env, LastLegalPolicy(), **options)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ticks": 0}, "at least one tick, 0 were asked for"),
        ({"ticks": -5}, "at least one tick, -5 were asked for"),
        ({"n_agents": 0}, "the environment has none. Pass --auto-seed-agents"),
        ({"seeds": [1]}, "2 environments, 1 seeds"),
        ({"seeds": [1, 1]}, "have the same seed"),
        ({"prefix": "a/b"}, "The prefix is 'a/b'; expected the start of a file name"),
        ({"prefix": ""}, "The prefix is ''"),
    ],
)
def test_a_capture_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        run_on(tmp_path, **changes)

    assert sentence in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def occupy_with_file(path: Path) -> None:
    path.write_text("notes")


def occupy_with_notes(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("notes")


def occupy_with_foreign_manifest(path: Path) -> None:
    occupy_with_notes(path)
    (path / "my_manifest.json").write_text('{"metadata": {}, "samples": []}')


def occupy_with_capture_and_notes(path: Path) -> None:
    capture(path)
    (path / "thesis.txt").write_text("notes")


def occupy_with_capture_and_folder(path: Path) -> None:
    capture(path, store="memmap")
    (path / "sub").mkdir()
    (path / "sub/notes.txt").write_text("notes")


@pytest.mark.parametrize(
    ("occupy", "overwrite", "sentence"),
    [
        (occupy_with_file, False, "is a file; expected a directory to create"),
        (occupy_with_file, True, "is a file; expected a directory to create"),
        (occupy_with_notes, False, "already holds 1 files. Choose another --output or pass --overwrite"),
        (occupy_with_notes, True, "holds no capture, so --overwrite does not delete it"),
        (occupy_with_foreign_manifest, True, "holds no capture, so --overwrite does not delete it"),
        (occupy_with_capture_and_notes, True, "holds thesis.txt, which no capture wrote"),
        (occupy_with_capture_and_folder, True, "holds sub, which no capture wrote"),
    ],
)
def test_an_output_in_use_is_refused(
    tmp_path: Path, occupy: Callable[[Path], None], overwrite: bool, sentence: str
) -> None:
    occupy(tmp_path / "capture")
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}

    with pytest.raises(UsageError) as refusal:
        capture(tmp_path / "capture", overwrite=overwrite)

    assert sentence in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.USAGE
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_what_appears_in_the_output_while_a_capture_runs_is_not_deleted(tmp_path: Path) -> None:
    capture(tmp_path / "capture")

    def write_notes(done: int, total: int) -> None:
        (tmp_path / "capture/thesis.txt").write_text("notes")

    with pytest.raises(UsageError, match=r"holds thesis\.txt, which no capture wrote"):
        capture(tmp_path / "capture", overwrite=True, report=write_notes)

    assert (tmp_path / "capture/thesis.txt").read_text() == "notes"
    assert [path.name for path in tmp_path.iterdir()] == ["capture"]


def test_a_capture_set_aside_by_a_killed_one_is_put_back_before_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    capture(tmp_path / "capture")
    before = content(tmp_path / "capture")
    (tmp_path / "capture").rename(tmp_path / ".capture.abc.replaced")

    with pytest.raises(UsageError, match="pass --overwrite"):
        capture(tmp_path / "capture")

    assert content(tmp_path / "capture") == before
    assert (
        f".capture.abc.replaced was set aside by a capture that was killed; it is {tmp_path}/capture"
        in caplog.text
    )


def test_a_replaced_capture_that_was_left_is_pointed_out(tmp_path: Path) -> None:
    capture(tmp_path / "capture")
    (tmp_path / "capture").rename(tmp_path / ".capture.abc.replaced")
    (tmp_path / "capture").mkdir()

    (warning,) = capture(tmp_path / "capture").warnings

    assert warning == (
        f"{tmp_path}/.capture.abc.replaced is an earlier capture whose successor was killed after it landed; delete it."
    )


def test_an_empty_directory_is_a_fine_output(tmp_path: Path) -> None:
    (tmp_path / "capture").mkdir()

    capture(tmp_path / "capture")

    assert len(load_demonstrations(tmp_path / "capture")) == 48


def test_a_town_without_agents_is_refused_unless_agents_are_asked_for() -> None:
    empty = RunConfig.model_validate({"town": {"n_agents": 0}})
    seeded = RunConfig.model_validate({"town": {"n_agents": 0}, "rollout": {"auto_seed_agents": True}})

    with pytest.raises(UsageError, match=r"nobody to record\. Pass --auto-seed-agents to put 6 into it"):
        populated(empty)
    assert populated(seeded).town.n_agents == 6
    assert populated(RunConfig()) == RunConfig()


def test_services_are_built_from_a_config_and_stamp_its_hash(tmp_path: Path) -> None:
    services = TrainingServices.from_config(RunConfig())

    result = services.rollout.capture(
        CountingEnv(), LastLegalPolicy(), ticks=6, seeds=[1, 2], output=tmp_path / "capture"
    )

    manifest = json.loads(Path(result.manifest).read_text())
    assert len(manifest["metadata"]["config_sha256"]) == 64
    assert len(services.replay.load(tmp_path / "capture")) == 24


@pytest.mark.parametrize("compress", [True, False])
def test_a_capture_as_configured_honours_every_rollout_setting(tmp_path: Path, compress: bool) -> None:
    rollout = {"ticks": 5, "towns": 2, "prefix": "night", "compress": compress, "auto_seed_agents": True}
    config = RunConfig.model_validate({"seed": 7, "town": {"n_agents": 0}, "rollout": rollout})

    result = capture_as_configured(config, output=tmp_path / "capture", policy="random", with_maps=False)

    assert (result.policy, result.seeds, result.ticks, result.agents) == ("random", (7, 8), 5, 6)
    assert Path(result.manifest).name == "night_manifest.json"
    with zipfile.ZipFile(tmp_path / "capture/night_seed7_agent0_001.npz") as archive:
        kinds = {info.compress_type for info in archive.infolist()}
    assert kinds == {zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED}


def test_the_command_says_at_load_what_the_town_can_feed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "townlet_train",
        "rollout",
        "capture",
        "--output",
        str(tmp_path / "capture"),
    ]

    done = subprocess.run(
        [*command, "--ticks", "5", "--towns", "1"], capture_output=True, text=True, check=True, timeout=300
    )

    assert "INFO This town is feasible" in done.stderr


def capture_town(output: Path, *options: str) -> int:
    return main(["rollout", "capture", "--output", str(output), "--towns", "2", "--ticks", "30", *options])


def test_the_command_captures_the_town(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = capture_town(tmp_path / "capture", "--seed", "9", "--store", "memmap", "--json")

    document = json.loads(capsys.readouterr().out)
    assert code == ExitCode.OK
    assert (document["frames"], document["seeds"], document["policy"]) == (360, [9, 10], "expert")
    assert load_demonstrations(tmp_path / "capture").features.shape[0] == 360


def test_the_command_refuses_a_directory_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert capture_town(tmp_path / "capture") == ExitCode.OK
    assert capture_town(tmp_path / "capture") == ExitCode.USAGE
    assert "pass --overwrite" in capsys.readouterr().err
    assert capture_town(tmp_path / "capture", "--overwrite") == ExitCode.OK


def test_an_unknown_environment_ends_with_exit_code_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert capture_town(tmp_path / "capture", "--env", "twon") == ExitCode.ENVIRONMENT
    assert "No environment named 'twon'. Did you mean 'town'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--ticks", "0"], "expected greater than 0"),
        (["--towns", "-1"], "expected greater than 0"),
        (["--policy", "exprt"], "Did you mean 'expert'?"),
        (["--store", "zip"], "npz"),
        (["--set", "town.n_agents=0"], "Pass --auto-seed-agents"),
        (["--prefix", "../x"], "expected the start of a file name"),
    ],
)
def test_the_command_refuses_wrong_options_with_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    code = capture_town(tmp_path / "capture", *options)

    assert code == ExitCode.USAGE
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "capture").exists()


def test_the_command_puts_agents_into_an_empty_town_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = capture_town(
        tmp_path / "capture", "--set", "town.n_agents=0", "--auto-seed-agents", "--no-maps", "--json"
    )

    assert code == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["agents"] == 6


def test_a_stub_policy_ends_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert capture_town(tmp_path / "capture", "--policy", "idle") == ExitCode.WARNINGS
    assert "capture_rollout_stub_policy provider=idle" in capsys.readouterr().err


def start_long_capture(output: Path) -> subprocess.Popen[str]:
    """A capture that would take minutes, once it has begun to write."""
    command = [sys.executable, "-m", "townlet_train", "rollout", "capture", "--output", str(output)]
    process = subprocess.Popen(
        [*command, "--ticks", "400000", "--towns", "1", "--store", "memmap", "--no-maps"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(output.parent.glob(".capture.*.partial/features.npy")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_capture_with_exit_code_7_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start_long_capture(tmp_path / "capture")

    process.send_signal(number)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert number.name in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_capture_leaves_nothing_that_reads_as_data(tmp_path: Path) -> None:
    process = start_long_capture(tmp_path / "capture")

    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)

    (leftover,) = tmp_path.glob("*.partial")
    with pytest.raises(TownletTrainError, match="was left by a capture that was killed"):
        load_demonstrations(leftover)
    (warning,) = capture(tmp_path / "capture").warnings
    assert warning == f"{leftover} was left by a capture that was killed; delete it."


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system here that the kernel makes up")
def test_a_place_where_no_capture_can_land_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert capture_town(Path("/proc/x/capture")) == 2
    assert "Error: /proc/x cannot be written: No such file or directory." in capsys.readouterr().err
