"""Same seed, same bytes: two processes that know nothing of each other leave equal files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL_TOWN = ["--set", "town.episode_ticks=80"]
CAPTURE = ["rollout", "capture", "--output", "demonstrations", "--towns", "8", "--ticks", "80", *SMALL_TOWN]


@pytest.fixture
def two_places(tmp_path: Path) -> list[tuple[Path, dict[str, str]]]:
    """Two empty folders, each with its own hash seed for strings."""
    places = []
    for number in ("1", "2"):
        folder = tmp_path / number
        folder.mkdir()
        places.append((folder, {**os.environ, "PYTHONHASHSEED": number}))
    return places


def run(place: tuple[Path, dict[str, str]], *arguments: str) -> dict[str, object]:
    folder, environment = place
    done = subprocess.run(
        [sys.executable, "-m", "townlet_train", *arguments, "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, 1), done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("store", ["npz", "memmap"])
@pytest.mark.parametrize("policy", ["expert", "random"])
def test_a_capture_is_the_same_files_byte_for_byte(
    two_places: list[tuple[Path, dict[str, str]]], store: str, policy: str
) -> None:
    for place in two_places:
        run(place, *CAPTURE, "--seed", "7", "--store", store, "--policy", policy)
    first, second = (files(folder / "demonstrations") for folder, _ in two_places)
    assert len(first) > 2
    assert first == second


@pytest.mark.slow
def test_another_seed_is_another_capture(two_places: list[tuple[Path, dict[str, str]]]) -> None:
    for place, seed in zip(two_places, ("7", "8"), strict=True):
        run(place, *CAPTURE, "--seed", seed, "--store", "memmap")
    first, second = (files(folder / "demonstrations") for folder, _ in two_places)
    arrays = [name for name in first if "features" in name or "actions" in name]
    assert arrays
    assert all(first[name] != second[name] for name in arrays)


@pytest.mark.slow
@pytest.mark.torch
def test_a_clone_is_the_same_file_and_earns_the_same(two_places: list[tuple[Path, dict[str, str]]]) -> None:
    pytest.importorskip("torch")
    learn = ["bc", "--manifest", "demonstrations", "--output-dir", "run", "--n-epochs", "2"]
    evaluate = ["evaluate", "run/bc_seed7_model.zip", "--episodes", "3", *SMALL_TOWN]
    clones, evaluations = [], []
    for place in two_places:
        run(place, *CAPTURE, "--seed", "7", "--no-maps")
        clones.append(run(place, *learn, "--seed", "7"))
        evaluations.append(run(place, *evaluate))
    assert clones[0]["checkpoint_sha256"] == clones[1]["checkpoint_sha256"]
    assert clones[0]["val_loss"] == clones[1]["val_loss"]
    assert evaluations[0] == evaluations[1]
    other = run(two_places[0], *learn, "--seed", "8", "--overwrite")
    assert other["checkpoint_sha256"] != clones[0]["checkpoint_sha256"]
