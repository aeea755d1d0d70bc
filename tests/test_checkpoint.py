"""A checkpoint comes back as it was written, is the same bytes every time, and anything else is refused in words."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import SPEC
from tests.policies import MLP, WITH_MAP, small_checkpoint
from townlet_train.data.checkpoint import Lineage, load_checkpoint, save_checkpoint, seed_ranges
from townlet_train.envs.protocol import EnvSpec
from townlet_train.errors import CheckpointError
from townlet_train.files import sha256_of

Rewrite = Callable[[dict[str, bytes]], dict[str, bytes]]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint_12.zip"
    save_checkpoint(path, small_checkpoint(MLP, SPEC, training_seeds=((1, 96),)))
    return path


def rewritten(path: Path, change: Rewrite, compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with its members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)
    return path


def edited_manifest(members: dict[str, bytes], **fields: object) -> dict[str, bytes]:
    return members | {"manifest.json": json.dumps(json.loads(members["manifest.json"]) | fields).encode()}


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = small_checkpoint(
        WITH_MAP, SPEC, training_seeds=((1, 96),), demonstrations="demos/manifest.json"
    )
    digest = save_checkpoint(tmp_path / "c.zip", written)
    read = load_checkpoint(tmp_path / "c.zip")
    assert (read.info, read.state, read.optimizer) == (written.info, written.state, None)
    assert read.weights.keys() == written.weights.keys()
    for name, array in written.weights.items():
        np.testing.assert_array_equal(read.weights[name], array)
    assert digest == sha256_of(tmp_path / "c.zip")


def test_the_optimiser_is_kept_when_there_is_one(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(MLP, SPEC)
    moments = {"exp_avg": np.arange(4, dtype=np.float32)}
    save_checkpoint(tmp_path / "c.zip", type(checkpoint)(checkpoint.info, checkpoint.weights, {}, moments))
    optimizer = load_checkpoint(tmp_path / "c.zip").optimizer
    assert optimizer is not None
    np.testing.assert_array_equal(optimizer["exp_avg"], moments["exp_avg"])


def test_equal_checkpoints_are_equal_bytes(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(MLP, SPEC)
    backwards = dict(reversed(checkpoint.weights.items()))
    first = save_checkpoint(tmp_path / "a.zip", checkpoint)
    second = save_checkpoint(
        tmp_path / "b.zip", type(checkpoint)(checkpoint.info, backwards, checkpoint.state)
    )
    assert first == second


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(MLP, SPEC)
    unwritable = type(checkpoint)(checkpoint.info, checkpoint.weights, {"bad": object()})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "c.zip", unwritable)
    assert list(tmp_path.iterdir()) == []


def test_every_cut_of_the_file_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for size in range(0, len(content), len(content) // 40):
        saved.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="not a whole zip archive"):
            load_checkpoint(saved)


def test_a_flipped_byte_of_any_member_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        starts = {e: e.header_offset + 30 + len(e.filename) for e in archive.infolist()}
    for entry, start in starts.items():
        for position in range(start, start + entry.file_size, max(1, entry.file_size // 20)):
            damaged = bytearray(content)
            damaged[position] ^= 0xFF
            saved.write_bytes(bytes(damaged))
            with pytest.raises(CheckpointError):
                load_checkpoint(saved)


BAD_ARCHIVES: list[tuple[str, Rewrite, str]] = [
    ("stable-baselines3", lambda m: {"data": b"{}", "policy.pth": b"", "_stable_baselines3_version": b"2"},
     "looks like a Stable-Baselines3 file"),
    ("a torch file", lambda m: {"archive/data.pkl": b"\x80"}, "carries 'archive/data.pkl', a pickle"),
    ("a smuggled pickle", lambda m: m | {"extra.pkl": b"\x80"}, "carries 'extra.pkl', a pickle"),
    ("some zip", lambda m: {"readme.txt": b"hello"}, "without 'manifest.json'"),
    ("no weights", lambda m: {k: v for k, v in m.items() if k != "weights.safetensors"}, "lacks 'weights.safetensors'"),
    ("one more member", lambda m: m | {"notes.txt": b"hi"}, "holds 'notes.txt', which its manifest does not name"),
    ("other weights", lambda m: m | {"weights.safetensors": m["weights.safetensors"][:-1] + b"\x01"},
     "'weights.safetensors' is not what its manifest says"),
    ("other state", lambda m: m | {"state.json": b"{}\n"}, "'state.json' is not what its manifest says"),
    ("a later schema", lambda m: edited_manifest(m, schema_version="9.0.0"), "schema version '9.0.0'"),
    ("no schema", lambda m: m | {"manifest.json": b"{}"}, "schema version None"),
    ("a manifest of nonsense", lambda m: m | {"manifest.json": b"\xff{"}, "'manifest.json' is not JSON"),
    ("a manifest that is a list", lambda m: m | {"manifest.json": b"[]"}, "holds no JSON object"),
    ("a key nobody knows", lambda m: edited_manifest(m, hello=1), "hello: Extra inputs are not permitted"),
    ("an info with holes", lambda m: edited_manifest(m, info={}), "info.algorithm: Field required"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"), [row[1:] for row in BAD_ARCHIVES], ids=[row[0] for row in BAD_ARCHIVES]
)
def test_what_is_no_checkpoint_is_refused_in_words(saved: Path, change: Rewrite, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(sentence)) as refusal:
        load_checkpoint(rewritten(saved, change))
    assert refusal.value.exit_code == 6
    assert str(saved) in str(refusal.value)


def test_a_repacked_checkpoint_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="compressed, expected stored"):
        load_checkpoint(rewritten(saved, lambda members: members, zipfile.ZIP_DEFLATED))


def test_an_encrypted_checkpoint_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    for signature, offset in (
        (b"PK\x03\x04", 6),
        (b"PK\x01\x02", 8),
    ):  # the flags of both headers of every entry
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + offset] |= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"holds 'manifest\.json' encrypted") as refusal:
        load_checkpoint(saved)
    assert refusal.value.exit_code == 6


def test_a_member_given_twice_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("state.json", b"{}")
    with pytest.raises(CheckpointError, match=r"'state\.json' more than once"):
        load_checkpoint(saved)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not exist\. Look at its name, or train one with"):
        load_checkpoint(tmp_path / "none.zip")
    with pytest.raises(CheckpointError, match="is a directory"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (EnvSpec("town", SPEC.feature_names, SPEC.action_names),
         "trained in environment 'counting', this one is 'town'. Pass --env counting"),
        (EnvSpec("counting", ("tick", "env", "agent", "mood", "episode"), SPEC.action_names),
         "feature 3 is 'last_action', the environment's is 'mood'"),
        (EnvSpec("counting", (*SPEC.feature_names, "mood"), SPEC.action_names),
         "knows 5 features, the environment has 6; only the environment has 'mood'"),
        (EnvSpec("counting", SPEC.feature_names, SPEC.action_names[:-1]),
         "knows 3 actions, the environment has 2; only the checkpoint has 'chat'"),
        (EnvSpec("counting", SPEC.feature_names, SPEC.action_names, ("self", "walls"), 3), "map channel 1 is 'tick'"),
        (EnvSpec("counting", SPEC.feature_names, SPEC.action_names, SPEC.map_channels, 5), "maps 3 tiles wide"),
    ],
    ids=["an environment", "a feature", "one feature more", "one action less", "a channel", "a map size"],
)  # fmt: skip
def test_the_first_difference_from_an_environment_is_named(spec: EnvSpec, sentence: str) -> None:
    info = small_checkpoint(WITH_MAP, SPEC).info
    info.check_matches(SPEC)
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        info.check_matches(spec)


VECTORS = EnvSpec("pushing", SPEC.feature_names, (), action_low=(-1, -np.inf), action_high=(1, np.inf))


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        ((-2, -np.inf), (2, np.inf), "Dimension 0 of the checkpoint's actions lies in [-1, 1], of"),
        ((-1, -np.inf), (1, 9), "Dimension 1 of the checkpoint's actions lies in [unbounded, unbounded]"),
        ((-1,), (1,), "actions have 2 dimensions, the environment's 1"),
        ((), (), "actions have 2 dimensions, the environment's 0"),
    ],
)  # fmt: skip
def test_actions_of_other_bounds_are_refused(
    low: tuple[float, ...], high: tuple[float, ...], sentence: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "c.zip", small_checkpoint(MLP, VECTORS))
    info = load_checkpoint(tmp_path / "c.zip").info
    info.check_matches(VECTORS)
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        info.check_matches(replace(VECTORS, action_low=low, action_high=high))


def test_a_checkpoint_from_before_bounds_were_kept_fits_any(saved: Path) -> None:
    def forget(members: dict[str, bytes]) -> dict[str, bytes]:
        manifest = json.loads(members["manifest.json"])
        del manifest["info"]["action_bounds"]
        return members | {"manifest.json": json.dumps(manifest).encode()}

    info = load_checkpoint(rewritten(saved, forget)).info
    info.check_matches(replace(SPEC, action_low=(-1.0,), action_high=(1.0,)))


def test_another_engine_runs_the_same_task() -> None:
    trained = small_checkpoint(MLP, replace(SPEC, env_id="envpool:Pushing-v1")).info
    trained.check_matches(replace(SPEC, env_id="Pushing-v1"))
    small_checkpoint(MLP, replace(SPEC, env_id="Pushing-v1")).info.check_matches(
        replace(SPEC, env_id="envpool:Pushing-v1")
    )
    with pytest.raises(
        CheckpointError, match="trained in environment 'envpool:Pushing-v1', this one is 'Pushing-v2'"
    ):
        trained.check_matches(replace(SPEC, env_id="Pushing-v2"))


def test_a_network_without_maps_fits_an_environment_with_any() -> None:
    small_checkpoint(MLP, SPEC).info.check_matches(
        EnvSpec("counting", SPEC.feature_names, SPEC.action_names, ("x",), 9)
    )


def test_seeds_are_kept_as_ranges_and_known_again() -> None:
    lineage = Lineage(training_seeds=seed_ranges([7, 1, 2, 3, 2]))
    assert lineage.training_seeds == ((1, 3), (7, 7))
    assert lineage.trained_on(range(10)) == (1, 2, 3, 7)
