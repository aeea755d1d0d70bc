"""Samples on disk in Townlet's layout: `<stem>.npz` with one trajectory and `<stem>.json` that names its axes.

Beside Townlet's seven arrays we write `action_mask`, `terminated`, `truncated` and, of a life that ran to the end of
its episode, `final_features`, which its readers ignore. Where actions are vectors, `actions` is float32 (n_steps,
n_dimensions) and the JSON has their bounds instead of names. A scripted policy has no log-probabilities and nobody
estimated values, yet the layout demands the arrays: they are zeros then, and the JSON lists them under
`placeholder_arrays`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.layout import (
    REQUIRED_UPSTREAM_FEATURES,
    Layout,
    action_name,
    action_payload,
    describe_bounds,
)
from townlet_train.data.schema import EpisodeKey, SampleMetadata, check_document, check_format
from townlet_train.data.trajectory import Maps, Trajectory
from townlet_train.errors import DataError

FORMAT = "townlet-train/sample"
FORMAT_VERSION = 1
OBSERVATION_ARRAYS = ("map", "features")
TRAINING_ARRAYS = ("actions", "old_log_probs", "rewards", "dones", "value_preds")


@dataclass(frozen=True)
class SampleHeader:
    """What the JSON of a sample says without its arrays."""

    action_ids: tuple[int, ...]  # sorted; (n_actions,)
    action_names: tuple[str, ...]  # of those ids; none when the file names none
    facts: SampleMetadata
    document: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Sample:
    """One trajectory, what its axes are called, and where it came from."""

    path: Path
    trajectory: Trajectory
    layout: Layout
    agent_id: str | None
    episode: EpisodeKey | None  # None in files that do not say
    metadata: Mapping[str, Any]


def load_sample(path: Path, metadata_path: Path | None = None) -> Sample:
    """Read one sample and check everything about it; `metadata_path` defaults to the same stem with `.json`.

    Raises `DataError` that names the file and what is wrong: not an npz, truncated, object arrays, missing arrays,
    lengths, non-finite values, missing or foreign metadata, action ids without a name.
    """
    arrays = _load_arrays(path)
    missing = [name for name in (*OBSERVATION_ARRAYS, *TRAINING_ARRAYS) if name not in arrays]
    if missing:
        raise DataError(f"{path} lacks {_listing(missing)}; it holds {_listing(sorted(arrays))}.")
    header = load_header(path, metadata_path or path.with_suffix(".json"))
    trajectory = _build_trajectory(path, arrays, header.facts)
    if header.facts.timesteps not in (None, trajectory.n_steps):
        raise DataError(
            f"{path} has {trajectory.n_steps} steps; its metadata says `timesteps` {header.facts.timesteps}."
        )
    layout, trajectory = _named(path, trajectory, header)
    return Sample(
        path=path,
        trajectory=trajectory,
        layout=layout,
        agent_id=header.facts.agent_id,
        episode=header.facts.episode,
        metadata=header.document,
    )


def load_header(path: Path, metadata_path: Path) -> SampleHeader:
    """Read and check the JSON of the sample at `path`, and not the sample."""
    if not metadata_path.is_file():
        raise DataError(f"{path} has no metadata: {metadata_path} does not exist, so its axes have no names.")
    document = load_json(metadata_path, "Metadata")
    if isinstance(document, dict):
        check_format(document, FORMAT, FORMAT_VERSION, metadata_path)
    facts = check_document(SampleMetadata, document, f"Metadata {metadata_path}")
    by_id: dict[int, str] = {}
    for payload, number in (facts.action_lookup or {}).items():
        if number in by_id:
            raise DataError(f"{path}: `action_lookup` gives id {number} to two actions.")
        if action_name(payload) in by_id.values():
            raise DataError(f"{path}: `action_lookup` has two ids for the action {action_name(payload)!r}.")
        by_id[number] = action_name(payload)
    if by_id and facts.action_low:
        raise DataError(f"{path}: its metadata names actions and bounds vectors; expected one of the two.")
    return SampleHeader(
        tuple(sorted(by_id)), tuple(by_id[number] for number in sorted(by_id)), facts, document
    )


def encode_arrays(trajectory: Trajectory, *, compress: bool) -> bytes:
    """The npz of a trajectory; the same trajectory gives the same bytes."""
    n_steps = trajectory.n_steps
    values = trajectory.values if trajectory.values is not None else np.zeros(n_steps + 1, np.float32)
    log_probs = trajectory.log_probs if trajectory.log_probs is not None else np.zeros(n_steps, np.float32)
    maps = trajectory.maps if trajectory.maps is not None else np.zeros((n_steps, 0, 0, 0), np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "map": maps.astype(np.float32),
        "features": trajectory.features,
        "actions": trajectory.actions,
        "old_log_probs": log_probs,
        "rewards": trajectory.rewards,
        "dones": trajectory.ended,
        "value_preds": values,
        "terminated": trajectory.terminated,
        "truncated": trajectory.truncated,
    }
    if trajectory.action_mask is not None:
        arrays["action_mask"] = trajectory.action_mask
    if trajectory.final_features is not None:
        arrays["final_features"] = trajectory.final_features
    buffer = io.BytesIO()
    # Level 1: the maps are nearly all zeros, where higher levels cost six times the time for a tenth of the size.
    compression = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = compression
            archive.writestr(info, member.getvalue(), compresslevel=1)
    return buffer.getvalue()


def describe_sample(
    trajectory: Trajectory, layout: Layout, *, agent_id: str, episode: EpisodeKey, start_tick: int
) -> dict[str, Any]:
    """The JSON that goes with a trajectory we captured. `start_tick` counts from the episode's start."""
    placeholders = {"old_log_probs": trajectory.log_probs is None, "value_preds": trajectory.values is None}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "env_id": layout.env_id,
        "agent_id": agent_id,
        "variant": "hybrid",
        "map_shape": list(layout.map_shape) if trajectory.maps is not None else [0, 0, 0],
        "map_channels": list(layout.map_channels) if trajectory.maps is not None else [],
        "feature_names": list(layout.feature_names),
        "training_arrays": list(TRAINING_ARRAYS),
        "placeholder_arrays": [name for name, absent in placeholders.items() if absent],
        "timesteps": trajectory.n_steps,
        "value_pred_steps": trajectory.n_steps + 1 if trajectory.values is None else len(trajectory.values),
        "action_lookup": {action_payload(name): index for index, name in enumerate(layout.action_names)},
        "action_dim": len(layout.action_names) or len(layout.action_low),
        **describe_bounds(layout),
        "episode": {
            "env": episode.env,
            "index": episode.index,
            "seed": episode.seed,
            "start_tick": start_tick,
        },
    }


def load_json(path: Path, what: str) -> Any:
    """A JSON document, or `DataError` naming the file and the line that is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{what} {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{what} {path} is not JSON: {error.msg} at line {error.lineno}.") from error


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an npz, none of them unpickled."""
    if not path.is_file():
        raise DataError(f"Sample {path} does not exist.")
    arrays = {}
    try:
        # Opened here, because NumPy leaves a file that turns out to be no zip open.
        with path.open("rb") as stream:
            if not stream.read(4).startswith(b"PK"):
                raise DataError(f"{path} is not an npz file (no zip signature at its start).")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                for name in archive.files:
                    arrays[name] = _load_member(path, archive, name)
    except DataError:
        raise
    except (
        Exception
    ) as error:  # a damaged zip makes zipfile, zlib and NumPy's header parser raise almost anything
        raise DataError(f"{path} is truncated or damaged ({error}). Capture or copy it again.") from error
    return arrays


def _load_member(path: Path, archive: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: array {name!r} holds Python objects, which are never unpickled; expected numbers."
            ) from None
        raise DataError(f"{path}: array {name!r} is damaged ({error}).") from error


def _build_trajectory(path: Path, arrays: Mapping[str, NDArray[Any]], facts: SampleMetadata) -> Trajectory:
    placeholders = facts.placeholder_arrays
    features, maps = arrays["features"], arrays["map"]
    features = features[None] if features.ndim == 1 else features
    maps = maps[None] if maps.ndim == 3 else maps
    ended = _typed(path, "dones", arrays["dones"], np.bool_)
    terminated = _typed(path, "terminated", arrays.get("terminated", ended), np.bool_)
    truncated = _typed(path, "truncated", arrays.get("truncated", np.zeros_like(ended)), np.bool_)
    mask, final = arrays.get("action_mask"), arrays.get("final_features")
    try:
        trajectory = Trajectory(
            features=_typed(path, "features", features, np.float32),
            actions=_typed(path, "actions", arrays["actions"], np.float32 if facts.action_low else np.int64),
            rewards=_typed(path, "rewards", arrays["rewards"], np.float32),
            terminated=terminated,
            truncated=truncated,
            maps=None
            if maps.size == 0 and maps.ndim == 4
            else compact_maps(_typed(path, "map", maps, np.float32)),
            action_mask=None if mask is None else _typed(path, "action_mask", mask, np.bool_),
            log_probs=None
            if "old_log_probs" in placeholders
            else _typed(path, "old_log_probs", arrays["old_log_probs"], np.float32),
            values=None
            if "value_preds" in placeholders
            else _typed(path, "value_preds", arrays["value_preds"], np.float32),
            final_features=None if final is None else _typed(path, "final_features", final, np.float32),
        )
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from None
    if not np.array_equal(trajectory.ended, ended):
        raise DataError(f"{path}: `dones` is not `terminated` or `truncated`; the file contradicts itself.")
    return trajectory


def compact_maps(maps: NDArray[np.float32]) -> Maps:
    """Maps as uint8 when every value is a whole number of that range, unchanged otherwise."""
    compact = maps.clip(0, 255).astype(np.uint8)
    return compact if np.array_equal(compact, maps) else maps


def _typed(path: Path, name: str, array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """`array` as `dtype`, refusing text, fractions where ids belong, and values that are not finite."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: array {name!r} holds {array.dtype}; expected numbers.")
    if array.dtype.kind == "f":
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise DataError(
                f"{path}: array {name!r} has {bad} values that are NaN or infinite; expected finite."
            )
    with np.errstate(invalid="ignore", over="ignore"):
        typed = array.astype(dtype, copy=False)
    if np.dtype(dtype).kind != "f" and not np.array_equal(typed, array):
        raise DataError(f"{path}: array {name!r} holds values that are no {np.dtype(dtype)}.")
    return typed


def _named(path: Path, trajectory: Trajectory, header: SampleHeader) -> tuple[Layout, Trajectory]:
    """The names of every axis, and the trajectory with action ids that index `action_names`."""
    metadata = header.document
    features = _names(path, metadata, "feature_names", trajectory.features.shape[1], required=True)
    if header.facts.format != FORMAT:
        missing = [name for name in REQUIRED_UPSTREAM_FEATURES if name not in features]
        if missing:
            raise DataError(
                f"{path}: `feature_names` lacks {_listing(missing)}, which every Townlet sample has."
            )
    channels: tuple[str, ...] = ()
    size = 0
    if trajectory.maps is not None:
        n_channels, height, width = trajectory.maps.shape[1:]
        if height != width:
            raise DataError(f"{path}: the local map is {height} by {width}; expected a square.")
        channels, size = _names(path, metadata, "map_channels", n_channels, required=False), height
    env_id, limits = header.facts.env_id or "townlet", header.facts.limits
    layout = Layout(features, header.action_names, channels, size, env_id, *limits)
    if trajectory.actions.shape[1:] != layout.action_shape:
        raise DataError(
            f"{path}: its actions have {trajectory.actions.shape[1]} dimensions, `action_low` bounds {len(limits[0])}."
        )
    return layout, _numbered(path, trajectory, header.action_ids)


def _names(
    path: Path, metadata: Mapping[str, Any], key: str, length: int, *, required: bool
) -> tuple[str, ...]:
    """A list of `length` names from the metadata; numbered ones where names are optional and absent."""
    names = metadata.get(key)
    if names is None and not required:
        return tuple(f"{key.removesuffix('s')}_{index}" for index in range(length))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: metadata key `{key}` is {_kind(names)}; expected a list of {length} names.")
    if len(names) != length:
        raise DataError(
            f"{path}: metadata key `{key}` has {len(names)} names for an axis of length {length}."
        )
    if len(set(names)) != length:
        raise DataError(f"{path}: metadata key `{key}` names something twice.")
    return tuple(names)


def _numbered(path: Path, trajectory: Trajectory, known: tuple[int, ...]) -> Trajectory:
    """The trajectory with actions and masks counted in the order of the named ids; unchanged when none is named."""
    if not known:
        return trajectory
    unnamed = sorted(set(np.unique(trajectory.actions).tolist()) - set(known))
    if unnamed:
        raise DataError(
            f"{path}: `action_lookup` names ids {_listing(known)} but the actions also use {_listing(unnamed)}."
        )
    mask = trajectory.action_mask
    if mask is not None and mask.shape[1] != len(known):
        raise DataError(f"{path}: `action_mask` has {mask.shape[1]} columns for {len(known)} named actions.")
    return replace(trajectory, actions=np.searchsorted(known, trajectory.actions).astype(np.int64))


def _listing(items: Any) -> str:
    return ", ".join(str(item) for item in items) or "nothing"


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
