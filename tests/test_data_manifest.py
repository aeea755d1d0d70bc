"""Manifests in every dialect: all entries are found, and none is left out in silence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.recordings import capture, townlet_sample, write_manifest
from townlet_train.data.manifest import (
    Manifest,
    find_manifest,
    load_document,
    parse_manifest,
)
from townlet_train.errors import DataError, ExitCode


def load_manifest(path: Path) -> Manifest:
    return parse_manifest(path, load_document(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        townlet_sample(tmp_path / f"{name}.npz")
    return tmp_path


DIALECTS: dict[str, Any] = {
    "paths": ["a.npz", "b.npz"],
    "objects": [{"sample": "a.npz", "meta": "a.json"}, {"sample": "b.npz", "metrics": {"timesteps": 4}}],
    "object": {"metadata": {"ticks": 4}, "samples": [{"sample": "a.npz"}, "b.npz"]},
}


@pytest.mark.parametrize("document", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_names_the_same_samples(folder: Path, document: Any) -> None:
    manifest = load_manifest(write_manifest(folder / "manifest.json", document))

    assert [entry.sample.name for entry in manifest.entries] == ["a.npz", "b.npz"]
    assert [entry.metadata.name for entry in manifest.entries] == ["a.json", "b.json"]


def test_a_manifest_may_be_yaml(folder: Path) -> None:
    path = folder / "manifest.yaml"
    path.write_text("- a.npz\n- sample: b.npz\n  accepted: true\n")

    assert len(load_manifest(path).entries) == 2


def test_rejected_entries_are_left_out_and_counted(folder: Path) -> None:
    rows = [{"sample": "a.npz", "accepted": False}, {"sample": "b.npz", "accepted": True}]

    manifest = load_manifest(write_manifest(folder / "m.json", rows))

    assert [entry.sample.name for entry in manifest.entries] == ["b.npz"]
    assert manifest.rejected == (1,)


def test_an_entry_that_repeats_a_sample_is_left_out_and_counted(folder: Path) -> None:
    manifest = load_manifest(write_manifest(folder / "m.json", ["a.npz", "b.npz", "./a.npz"]))

    assert len(manifest.entries) == 2
    assert manifest.duplicates == (3,)


def test_paths_may_count_from_a_directory_above_the_manifest(folder: Path) -> None:
    path = write_manifest(folder / "data/manifests/m.json", ["a.npz"])

    assert load_manifest(path).entries[0].sample == folder / "a.npz"


def test_paths_may_count_from_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "elsewhere"
    townlet_sample(elsewhere / "c.npz")
    path = write_manifest(folder / "m.json", ["c.npz"])
    monkeypatch.chdir(elsewhere)

    assert load_manifest(path).entries[0].sample == elsewhere / "c.npz"


def test_a_path_that_means_two_files_is_refused_naming_both(folder: Path) -> None:
    inner = townlet_sample(folder / "inner/a.npz", 9)
    path = write_manifest(folder / "inner/m.json", ["a.npz"])

    with pytest.raises(DataError) as refusal:
        load_manifest(path)

    assert f"{path}, entry 1: a.npz means two different files, {inner} and {folder / 'a.npz'}" in str(
        refusal.value
    )


def test_two_copies_of_one_file_are_no_ambiguity(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    for name in ("a.npz", "a.json"):
        os.link(folder / name, inner / name)

    assert load_manifest(write_manifest(inner / "m.json", ["a.npz"])).entries[0].sample == inner / "a.npz"


def test_our_own_manifest_is_not_led_astray_by_files_above_it(folder: Path) -> None:
    path = Path(capture(folder / "inner", prefix="a").manifest)
    name = load_manifest(path).entries[0].sample.name
    townlet_sample(folder / name, 9)

    assert load_manifest(path).entries[0].sample == folder / "inner" / name


BROKEN: list[tuple[str, Any, str]] = [
    ("missing", ["a.npz", "gone.npz"], "entry 2: gone.npz does not exist (looked in "),
    ("missing meta", [{"sample": "a.npz", "meta": "gone.json"}], "entry 1: gone.json does not exist"),
    ("absolute", ["/nowhere/a.npz"], "entry 1: /nowhere/a.npz does not exist"),
    ("number", [3], "entry 1: expected a path or an object with `sample`, got 3"),
    ("no sample", [{"file": "a.npz"}], "entry 1: expected a path or an object with `sample`"),
    (
        "accepted",
        [{"sample": "a.npz", "accepted": "no"}],
        "entry 1: `accepted` is 'no'; it should be a valid boolean",
    ),
    ("meta", [{"sample": "a.npz", "meta": 3}], "entry 1: `meta` is 3; it should be a valid string"),
    ("metadata", {"metadata": [1], "samples": []}, "`metadata` is a list; expected an object"),
    ("empty", [], "leaves no sample: 0 entries, 0 rejected"),
    ("all rejected", [{"sample": "a.npz", "accepted": False}], "leaves no sample: 1 entries, 1 rejected"),
    ("text", "a.npz", "is a str; expected a list of samples"),
    (
        "catalogue",
        {"v1": {"manifest": "m/v1.json"}},
        "is a catalogue of datasets (their manifests: m/v1.json)",
    ),
    ("checksums", {"a": {"sample": "a.npz", "sha256": "0"}}, "is a table of checksums"),
    (
        "version",
        {"metadata": {"format": "townlet-train/capture", "format_version": 9}, "samples": ["a.npz"]},
        "has format version 9; this release reads 1",
    ),
]


@pytest.mark.parametrize(
    ("document", "sentence"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_a_broken_manifest_is_refused_in_words(folder: Path, document: Any, sentence: str) -> None:
    path = write_manifest(folder / "m.json", document)

    with pytest.raises(DataError) as refusal:
        load_manifest(path)

    assert str(path) in str(refusal.value)
    assert sentence in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("m.json", '["a.npz",\n', "is not JSON: Expecting value at line 2"),
        ("m.yaml", "- [a\n- b", "is not YAML at line "),
        ("m.yaml", "", "is empty; expected a list of samples"),
    ],
)
def test_a_document_that_cannot_be_parsed_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(DataError) as refusal:
        load_manifest(path)

    assert f"Manifest {path} {sentence}" in str(refusal.value)


def test_a_directory_with_several_manifests_asks_which(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_manifest(tmp_path / f"{name}_manifest.json", [])

    with pytest.raises(DataError, match=r"holds 2 manifests \(one_manifest\.json, two_manifest\.json\)"):
        find_manifest(tmp_path)


def test_a_directory_with_manifests_of_other_names_says_which_to_name(folder: Path) -> None:
    for name in ("train", "held_out"):
        write_manifest(folder / f"{name}.json", {"samples": ["a.npz"]})
    (folder / "notes.json").write_text("{")

    with pytest.raises(DataError) as refusal:
        find_manifest(folder)

    assert str(refusal.value) == (
        f"{folder} holds no *_manifest.json. Name one of the manifests inside it: held_out.json, train.json."
    )


def test_townlets_manifests_find_their_samples_from_any_working_directory(
    townlet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    idle = load_manifest(townlet_data / "data/bc_datasets/manifests/idle_v1.json")
    replay = load_manifest(townlet_data / "docs/samples/replay_manifest.json")

    assert [entry.sample.stem for entry in idle.entries] == ["idle_alice", "idle_bob"]
    assert len(replay.entries) == 3


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("data/bc_datasets/versions.json", "is a catalogue of datasets"),
        ("data/bc_datasets/checksums/idle_v1.json", "is a table of checksums"),
        ("docs/samples/ppo_log.jsonl", "is not JSON"),
    ],
)
def test_townlets_other_documents_are_refused_for_what_they_are(
    townlet_data: Path, name: str, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        load_manifest(townlet_data / name)
