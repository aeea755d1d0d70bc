"""The one checkpoint format: what a policy is, what it was trained on, and proof that the file is whole.

A checkpoint is a zip archive, stored and not compressed, that needs neither torch nor pickle to read:

    manifest.json            schema version, size and sha256 of every other member, and a `CheckpointInfo`
    weights.safetensors      the network's arrays and the frozen feature normaliser
    state.json               counters, and what resuming needs beside arrays
    optimizer.safetensors    the learner's arrays beside the weights, when training may go on from here
    training.safetensors     the rollout at hand, the environments and the curve, when it may go on as the same run

The same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from townlet_train.errors import CheckpointError
from townlet_train.files import to_json, write_bytes

CHECKPOINT_SCHEMA = "1.0.0"
MANIFEST, WEIGHTS, STATE, OPTIMIZER, TRAINING = (
    "manifest.json",
    "weights.safetensors",
    "state.json",
    "optimizer.safetensors",
    "training.safetensors",
)
ENCRYPTED = 0x1  # bit of a zip entry's flags
HOW_TO_TRAIN = "Look at its name, or train one with `townlet-train bc` or `townlet-train ppo`."

Arrays = Mapping[str, NDArray[Any]]
Bounds = tuple[float | None, float | None]  # lowest and highest, None: unbounded


class Bounded(Protocol):
    """What has vectors as actions, or, with no bounds, indices."""

    @property
    def action_low(self) -> tuple[float, ...]: ...
    @property
    def action_high(self) -> tuple[float, ...]: ...


class Spaces(Bounded, Protocol):
    """What an environment shows and takes, by name; `envs.protocol.EnvSpec` is one."""

    @property
    def env_id(self) -> str: ...
    @property
    def feature_names(self) -> tuple[str, ...]: ...
    @property
    def action_names(self) -> tuple[str, ...]: ...
    @property
    def map_channels(self) -> tuple[str, ...]: ...
    @property
    def map_size(self) -> int: ...


def task_of(env_id: str) -> str:
    """What an environment is about, whatever engine runs it; the engine's name comes before a colon.

    >>> task_of("envpool:LunarLander-v3"), task_of("LunarLander-v3")
    ('LunarLander-v3', 'LunarLander-v3')
    """
    return env_id.rpartition(":")[2]


def bounds_of(spaces: Bounded) -> tuple[Bounds, ...]:
    """Lowest and highest value of each dimension of its actions; empty where actions are indices."""
    each = zip(spaces.action_low, spaces.action_high, strict=True)
    return tuple((low if isfinite(low) else None, high if isfinite(high) else None) for low, high in each)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lineage(_Document):
    """Where a policy comes from."""

    demonstrations: str | None = Field(None, description="manifest the demonstrations came from")
    demonstrations_sha256: str | None = Field(None, description="sha256 of that manifest's bytes")
    training_seeds: tuple[tuple[int, int], ...] = Field(
        (), description="environment seeds seen, (first, last) each"
    )
    parent_sha256: str | None = Field(None, description="sha256 of the checkpoint this one started from")
    reference_sha256: str | None = Field(None, description="sha256 of the checkpoint training stayed near to")

    def trained_on(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """Those of `seeds` that training saw."""
        return tuple(s for s in seeds if any(first <= s <= last for first, last in self.training_seeds))


def seed_ranges(seeds: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Seeds as (first, last) runs of consecutive numbers, in order.

    >>> seed_ranges([3, 1, 2, 9])
    ((1, 3), (9, 9))
    """
    return merged_ranges([(seed, seed) for seed in seeds])


def merged_ranges(*several: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The seeds of several lists of (first, last) runs as one such list, in order.

    >>> merged_ranges([(1, 3), (9, 9)], [(4, 5), (8, 12)])
    ((1, 5), (8, 12))
    """
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pair for ranges in several for pair in ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


class CheckpointInfo(_Document):
    """What a policy is, by name, to be compared with a dataset, an environment or another policy."""

    algorithm: str = Field(description="strategy that trained it")
    env_id: str
    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    map_channels: tuple[str, ...] = ()
    map_size: int = 0
    action_bounds: tuple[Bounds, ...] = Field(
        (),
        description="of vectors as actions, (lowest, highest) each; empty: indices, or nobody wrote them down",
    )
    network: dict[str, Any] = Field(
        description="kind and sizes of the network; `policies.network.NetworkSpec`"
    )
    lineage: Lineage = Lineage()
    config_hash: str | None = Field(None, description="sha256 of the resolved configuration")
    versions: dict[str, str] = Field(default_factory=dict, description="versions of what trained it")

    def check_matches(self, spaces: Spaces) -> None:
        """Raise `CheckpointError` naming what differs: task, or the first feature, action, bound or map channel.

        The same task on another engine (`task_of`) is no difference.
        """
        if self.env_id and spaces.env_id and task_of(self.env_id) != task_of(spaces.env_id):
            raise CheckpointError(
                f"The checkpoint was trained in environment {self.env_id!r}, this one is {spaces.env_id!r}. "
                f"Pass --env {self.env_id}."
            )
        _check_names("feature", self.feature_names, spaces.feature_names)
        _check_names("action", self.action_names, spaces.action_names)
        if self.action_bounds:
            _check_bounds(self.action_bounds, bounds_of(spaces))
        if not self.map_channels:
            return  # the network reads no map
        _check_names("map channel", self.map_channels, spaces.map_channels)
        if self.map_size != spaces.map_size:
            raise CheckpointError(
                f"It reads maps {self.map_size} tiles wide, the environment's have {spaces.map_size}."
            )


class _Member(_Document):
    sha256: str
    size: int


class CheckpointManifest(_Document):
    """manifest.json of a checkpoint."""

    schema_version: str
    info: CheckpointInfo
    members: dict[str, _Member]


@dataclass(frozen=True)
class Checkpoint:
    """A policy in memory: its description, its arrays by name, and what training needs to go on."""

    info: CheckpointInfo
    weights: Arrays
    state: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Arrays | None = None
    training: Arrays | None = None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write `checkpoint` to `path`, whole or not at all; returns the sha256 of the file."""
    members = {WEIGHTS: _pack(checkpoint.weights), STATE: (to_json(dict(checkpoint.state)) + "\n").encode()}
    for name, arrays in ((OPTIMIZER, checkpoint.optimizer), (TRAINING, checkpoint.training)):
        if arrays is not None:
            members[name] = _pack(arrays)
    manifest = CheckpointManifest(
        schema_version=CHECKPOINT_SCHEMA,
        info=checkpoint.info,
        members={
            name: _Member(sha256=_sha256(content), size=len(content)) for name, content in members.items()
        },
    )
    head = (to_json(manifest.model_dump(mode="json"), indent=2) + "\n").encode()
    file = io.BytesIO()  # the whole is written at once, by a call that lets other threads go on
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {MANIFEST: head, **members}.items():
            archive.writestr(_dateless(name), content)
    write_bytes(path, file.getvalue())
    return _sha256(file.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint; `CheckpointError` says what is wrong with a file that is none."""
    contents = _read_members(path)
    manifest = _parse_manifest(path, contents.pop(MANIFEST))
    _check_members(path, manifest, contents)
    return Checkpoint(
        info=manifest.info,
        weights=_unpack(path, WEIGHTS, contents[WEIGHTS]),
        state=_parse_json(path, STATE, contents[STATE]),
        optimizer=_unpack(path, OPTIMIZER, contents[OPTIMIZER]) if OPTIMIZER in contents else None,
        training=_unpack(path, TRAINING, contents[TRAINING]) if TRAINING in contents else None,
    )


def sorted_checkpoints(folder: Path) -> list[Path]:
    """checkpoint_<step>.zip in the order of their steps."""
    return checkpoints_after(folder, -1)


def checkpoints_after(folder: Path, timestep: int) -> list[Path]:
    """checkpoint_<step>.zip with larger steps, in the order of their steps."""
    named = [path for path in folder.glob("checkpoint_*.zip") if _step_in(path).isdigit()]
    return sorted((path for path in named if step_of(path) > timestep), key=step_of)


def step_of(path: Path) -> int:
    """The step of checkpoint_<step>.zip."""
    return int(_step_in(path))


def _step_in(path: Path) -> str:
    return path.stem.removeprefix("checkpoint_")


def under(part: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Arrays of one part of a whole, named `part`.name."""
    return {f"{part}.{name}": array for name, array in arrays.items()}


def below(part: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """The arrays that `under` named after `part`, as they were called before."""
    start = f"{part}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _read_members(path: Path) -> dict[str, bytes]:
    """Every member's bytes; refuses what is not an archive of ours before reading any member."""
    if not path.exists():
        raise CheckpointError(f"Checkpoint {path} does not exist. {HOW_TO_TRAIN}")
    if path.is_dir():
        raise CheckpointError(f"Checkpoint {path} is a directory; name the .zip file inside it.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_kind(path, entries)
            return {entry.filename: archive.read(entry) for entry in entries}
    except OSError as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {error.strerror}.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is not a whole zip archive ({error}); it was cut short, damaged or is no checkpoint."
        ) from error


def _check_kind(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse archives that other programs wrote, by name where they are known."""
    names = [entry.filename for entry in entries]
    if "_stable_baselines3_version" in names or {"data", "policy.pth"} <= set(names):
        raise CheckpointError(
            f"{path} looks like a Stable-Baselines3 file, whose pickles are never read. {HOW_TO_TRAIN}"
        )
    pickled = next((name for name in names if name.endswith((".pkl", ".pickle", ".pth", ".pt"))), None)
    if pickled is not None:
        raise CheckpointError(f"{path} carries {pickled!r}, a pickle, which is never read. {HOW_TO_TRAIN}")
    if MANIFEST not in names:
        raise CheckpointError(f"{path} is a zip archive without {MANIFEST!r}, so it is not a checkpoint.")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise CheckpointError(f"Checkpoint {path} holds {repeated!r} more than once; it was tampered with.")
    locked = next((entry.filename for entry in entries if entry.flag_bits & ENCRYPTED), None)
    if locked is not None:
        raise CheckpointError(
            f"Checkpoint {path} holds {locked!r} encrypted, expected plain; it was repacked."
        )
    packed = next((entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise CheckpointError(
            f"Checkpoint {path} holds {packed!r} compressed, expected stored; it was repacked."
        )


def _parse_manifest(path: Path, content: bytes) -> CheckpointManifest:
    document = _parse_json(path, MANIFEST, content)
    version = document.get("schema_version")
    if version != CHECKPOINT_SCHEMA:
        raise CheckpointError(
            f"Checkpoint {path} has schema version {version!r}, this program reads {CHECKPOINT_SCHEMA!r}."
        )
    try:
        return CheckpointManifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"Checkpoint {path}, {MANIFEST}, {where}: {first['msg']}.") from error


def _check_members(path: Path, manifest: CheckpointManifest, contents: Mapping[str, bytes]) -> None:
    """Every member the manifest names is there with its size and hash, and nothing else is."""
    for name in sorted({WEIGHTS, STATE, *manifest.members} - set(contents)):
        raise CheckpointError(f"Checkpoint {path} lacks {name!r}; it was tampered with.")
    for name in sorted(set(contents) - set(manifest.members)):
        raise CheckpointError(
            f"Checkpoint {path} holds {name!r}, which its manifest does not name; it was tampered with."
        )
    for name, content in contents.items():
        expected = manifest.members[name]
        if (len(content), _sha256(content)) != (expected.size, expected.sha256):
            raise CheckpointError(
                f"Checkpoint {path}: {name!r} is not what its manifest says "
                f"({len(content)} bytes of {expected.size}, sha256 differs); it was damaged or tampered with."
            )


def _check_names(what: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            raise CheckpointError(
                f"The checkpoint's {what} {index} is {mine!r}, the environment's is {other!r}."
            )
    if len(ours) != len(theirs):
        longer = "environment" if len(theirs) > len(ours) else "checkpoint"
        extra = (theirs if len(theirs) > len(ours) else ours)[min(len(ours), len(theirs))]
        raise CheckpointError(
            f"The checkpoint knows {len(ours)} {what}s, the environment has {len(theirs)}; "
            f"only the {longer} has {extra!r}."
        )


def _check_bounds(ours: Sequence[Bounds], theirs: Sequence[Bounds]) -> None:
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            raise CheckpointError(
                f"Dimension {index} of the checkpoint's actions lies in {_interval(mine)}, "
                f"of the environment's in {_interval(other)}."
            )
    if len(ours) != len(theirs):
        raise CheckpointError(
            f"The checkpoint's actions have {len(ours)} dimensions, the environment's {len(theirs)}."
        )


def _interval(bounds: Bounds) -> str:
    low, high = ("unbounded" if bound is None else f"{bound:g}" for bound in bounds)
    return f"[{low}, {high}]"


def _pack(arrays: Arrays) -> bytes:
    """Arrays as safetensors, in one order whatever the mapping's."""
    return save_arrays({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})


def _unpack(path: Path, name: str, content: bytes) -> dict[str, NDArray[Any]]:
    try:
        return load_arrays(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"Checkpoint {path}: {name!r} does not hold arrays ({error}).") from error


def _parse_json(path: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"Checkpoint {path}: {name!r} is not JSON ({error}).") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"Checkpoint {path}: {name!r} holds no JSON object.")
    return document


def _dateless(name: str) -> zipfile.ZipInfo:
    """An archive entry with a fixed date and mode, so that equal content is equal bytes."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
