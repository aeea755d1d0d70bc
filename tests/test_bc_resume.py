"""A cloning that goes on from a checkpoint is the same run, bit for bit; what would make it another one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.short_runs import left_by
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.data.checkpoint import load_checkpoint, sorted_checkpoints
from townlet_train.errors import CheckpointError, Interrupted, UsageError
from townlet_train.files import sha256_of
from townlet_train.orchestrator import run_strategy
from townlet_train.results import BCTrainingResultDTO
from townlet_train.services.rollout import capture_as_configured

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

N_REPORTS = 3  # of an epoch: before each of two chunks, and at its end
SHORT = {"n_epochs": 4, "evaluate": False}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More frames to train on than are gathered at once."""
    return captured(tmp_path_factory.mktemp("captured") / "demonstrations", towns=20, ticks=100)


def captured(folder: Path, *, towns: int, ticks: int, seed: int = 1) -> Path:
    size = {"towns": towns, "ticks": ticks, "store": "memmap"}
    capture_as_configured(RunConfig.model_validate({"seed": seed, "rollout": size}), output=folder)
    return folder


def clone(run_dir: Path | None, **given: Any) -> BCTrainingResultDTO:
    """One run of bc, told of the orchestrator's options and of params alike."""
    names = ("resume_from", "fork", "overwrite", "report")
    options = {name: given.pop(name) for name in names if name in given}
    params = given if options.get("resume_from") else {**SHORT, **given}
    result = run_strategy("bc", params, config=RunConfig(), run_dir=run_dir, **options)
    assert isinstance(result, BCTrainingResultDTO)
    return result


def stopping_at(number: int) -> Callable[[Progress], None]:
    """What asks to stop at that report."""
    reports = iter(range(number + 1))

    def report(progress: Progress) -> None:
        if next(reports) == number:
            raise Interrupted("Stopped.")

    return report


def stopped(run_dir: Path, number: int, **given: Any) -> Path:
    """Where a run is saved that is stopped at its report of that number."""
    with pytest.raises(Interrupted, match=r"Stopped\. Go on with --resume-from ") as stop:
        clone(run_dir, report=stopping_at(number), **given)
    return Path(str(stop.value).split("--resume-from ")[1])


@pytest.mark.parametrize("number", [0, 1, 2, 4, 3 * N_REPORTS + 1, 4 * N_REPORTS - 1])
def test_stopped_anywhere_and_resumed_it_ends_with_the_same_bytes(
    number: int, demonstrations: Path, tmp_path: Path
) -> None:
    clone(tmp_path / "straight", manifest=demonstrations)
    saved = stopped(tmp_path / "run", number, manifest=demonstrations)
    if number % N_REPORTS != N_REPORTS - 1:  # in the middle of an epoch, or before its first frame
        assert load_checkpoint(saved).state["epoch"] == number // N_REPORTS
    result = clone(tmp_path / "run", resume_from="latest")
    ours, straight = left_by(tmp_path / "run"), left_by(tmp_path / "straight")
    if saved.name not in straight:
        ours.pop(saved.name, None)
    assert ours == straight
    assert (result.samples_per_sec is None) == (number == 4 * N_REPORTS - 1)


def test_a_network_of_maps_is_resumed_where_it_was(tmp_path: Path) -> None:
    few = captured(tmp_path / "demonstrations", towns=5, ticks=30)
    given = {"manifest": few, "network": "conflict_aware", "hidden_sizes": (16,), "n_epochs": 3}
    clone(tmp_path / "straight", **given)
    clone(tmp_path / "run", resume_from=stopped(tmp_path / "run", 2, **given))
    assert left_by(tmp_path / "run") == left_by(tmp_path / "straight")


def test_it_goes_on_elsewhere_from_any_checkpoint(demonstrations: Path, tmp_path: Path) -> None:
    clone(tmp_path / "straight", manifest=demonstrations)
    for checkpoint in sorted_checkpoints(tmp_path / "straight"):
        clone(tmp_path / checkpoint.stem, resume_from=checkpoint)
        after = int(checkpoint.stem.removeprefix("checkpoint_"))
        assert left_by(tmp_path / checkpoint.stem) == left_by(tmp_path / "straight", after=after)


def test_one_that_stopped_by_itself_goes_on_with_more_patience(demonstrations: Path, tmp_path: Path) -> None:
    few = captured(tmp_path / "few", towns=3, ticks=40)
    given = {"manifest": few, "n_epochs": 40, "batch_size": 16, "learning_rate": 0.02}
    clone(tmp_path / "long", patience=12, **given)
    short = clone(tmp_path / "run", patience=2, **given)
    assert short.epochs == short.best_epoch + 2 < 40
    result = clone(tmp_path / "run", resume_from="latest", patience=12)
    assert result.epochs > short.epochs
    after = sorted_checkpoints(tmp_path / "run")[0]
    known = int(after.stem.removeprefix("checkpoint_")) if result.best_epoch == short.best_epoch else 0
    ours, long = left_by(tmp_path / "run", after=known), left_by(tmp_path / "long", after=known)
    for name in [
        name for name in ours if name.startswith("checkpoint_")
    ]:  # hashes of other settings are in them
        del ours[name], long[name]
    assert ours == long


def test_a_longer_one_goes_on_at_the_rate_of_its_new_length(demonstrations: Path, tmp_path: Path) -> None:
    clone(tmp_path / "run", manifest=demonstrations, n_epochs=2)
    result = clone(tmp_path / "run", resume_from="latest", n_epochs=4, patience=9)
    rates = [line["learning_rate"] for line in left_by(tmp_path / "run")["metrics.jsonl"]]
    assert rates == pytest.approx([1e-3, 0, 0.5e-3, 0], abs=1e-12)
    assert result.epochs == 4


def test_a_finished_one_has_nothing_left_to_do(
    demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone(tmp_path / "run", manifest=demonstrations)
    before = left_by(tmp_path / "run")
    assert main(["bc", "--resume-from", "latest", "--output-dir", str(tmp_path / "run")]) == 3
    sentence = "is finished and nothing is left to do. Raise --n-epochs to train on, or pass --overwrite"
    assert sentence in capsys.readouterr().err
    assert left_by(tmp_path / "run") == before
    clone(tmp_path / "run", resume_from="latest", overwrite=True)
    assert left_by(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch_size": 32}, "batch_size is 256 in .* and 32 now, which makes it another run"),
        ({"hidden_sizes": (8,)}, "hidden_sizes is None in"),
        ({"n_epochs": 1}, "has 4 epochs behind it, 1 are asked for. Raise --n-epochs"),
    ],
)
def test_what_would_make_it_another_one_is_refused(
    given: dict[str, Any], sentence: str, demonstrations: Path, tmp_path: Path
) -> None:
    clone(tmp_path / "run", manifest=demonstrations, patience=9)
    newest = sorted_checkpoints(tmp_path / "run")[-1]
    assert load_checkpoint(newest).state["epoch"] == 4
    with pytest.raises(UsageError, match=sentence):
        clone(tmp_path / "new", resume_from=newest, **given)
    assert not (tmp_path / "new").exists()


def test_other_demonstrations_are_refused(tmp_path: Path) -> None:
    manifest = captured(tmp_path / "demonstrations", towns=4, ticks=20) / "rollout_sample_manifest.json"
    saved = stopped(tmp_path / "run", 1, manifest=manifest)
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document, indent=3))
    with pytest.raises(CheckpointError, match="which is another recording now"):
        clone(tmp_path / "run", resume_from=saved)


def test_another_device_is_a_warning(demonstrations: Path, tmp_path: Path) -> None:
    stopped(tmp_path / "run", 4, manifest=demonstrations)
    result = clone(tmp_path / "run", resume_from="latest", device="cpu:0")
    assert result.warnings[0] == "The run was on cpu and goes on on cpu:0, where sums may round otherwise."


def test_its_model_begins_no_run_but_a_forked_one(demonstrations: Path, tmp_path: Path) -> None:
    model = Path(str(clone(tmp_path / "run", manifest=demonstrations).checkpoint))
    with pytest.raises(CheckpointError, match="holds a policy and no state of its training"):
        clone(tmp_path / "new", resume_from=model)
    forked = clone(tmp_path / "new", resume_from=model, fork=True, manifest=demonstrations, n_epochs=1)
    assert load_checkpoint(Path(str(forked.checkpoint))).info.lineage.parent_sha256 == sha256_of(model)


def updates(checkpoint: Path) -> float:
    """How many its optimiser has made."""
    optimiser = load_checkpoint(checkpoint).optimizer
    assert optimiser is not None
    return optimiser["adam.step"].item()


def test_a_fork_begins_with_policy_and_optimiser_and_is_a_run_of_its_own(
    demonstrations: Path, tmp_path: Path
) -> None:
    first = clone(tmp_path / "run", manifest=demonstrations, hidden_sizes=(8,))
    newest = sorted_checkpoints(tmp_path / "run")[-1]
    other = captured(tmp_path / "other", towns=4, ticks=40, seed=90)
    given = {"manifest": other, "n_epochs": 1, "learning_rate": 1e-9}
    forked = clone(tmp_path / "fork", resume_from=newest, fork=True, **given)
    old, new = load_checkpoint(newest), load_checkpoint(Path(str(forked.checkpoint)))
    assert new.info.network == old.info.network
    for name, array in old.weights.items():
        assert np.allclose(new.weights[name], array, atol=1e-6), name
    [line] = left_by(tmp_path / "fork")["metrics.jsonl"]
    assert (line["epoch"], forked.epochs, first.epochs) == (1, 1, 4)
    [checkpoint] = sorted_checkpoints(tmp_path / "fork")
    assert updates(checkpoint) > updates(newest) > 0
    assert stopped(tmp_path / "again", 0, **given, resume_from=newest, fork=True).exists()
    result = clone(tmp_path / "again", resume_from="latest")
    assert load_checkpoint(Path(str(result.checkpoint))).info.network == old.info.network


def test_a_policy_of_vectors_is_no_beginning(demonstrations: Path, tmp_path: Path) -> None:
    params = {"timesteps": 64, "n_steps": 64, "n_epochs": 1, "evaluation_episodes": 0}
    pendulum = RunConfig(env="Pendulum-v1")
    model = run_strategy("ppo", params, config=pendulum, run_dir=tmp_path / "ppo").checkpoint
    with pytest.raises(CheckpointError, match="acts by vectors of numbers"):
        clone(tmp_path / "new", resume_from=model, fork=True, manifest=demonstrations)
    assert not (tmp_path / "new").exists()
