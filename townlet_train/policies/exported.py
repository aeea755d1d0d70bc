"""A policy in one file of arrays, npz or safetensors, and the runner that acts with it: NumPy, and no torch.

The file holds every array of the checkpoint, the normaliser among them, and under `INFO` what a checkpoint's manifest
says of the policy, so the mask is applied as it was in training.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays

from townlet_train.data.checkpoint import Checkpoint, CheckpointInfo
from townlet_train.errors import CheckpointError
from townlet_train.policies.network import NetworkPolicy

INFO = "townlet_train.info"


def write_npz(path: Path, checkpoint: Checkpoint) -> None:
    """The arrays as an npz that `numpy.load` reads, nothing in it pickled."""
    text = checkpoint.info.model_dump_json().encode()
    with path.open("wb") as stream:
        arrays: dict[str, Any] = {**checkpoint.weights, INFO: np.frombuffer(text, np.uint8)}
        np.savez(stream, **arrays)


def write_safetensors(path: Path, checkpoint: Checkpoint) -> None:
    """The arrays as safetensors, what they are in its metadata."""
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(checkpoint.weights.items())}
    path.write_bytes(save_arrays(arrays, metadata={INFO: checkpoint.info.model_dump_json()}))


def load_exported(path: Path, *, deterministic: bool = False) -> NetworkPolicy:
    """The policy in an exported npz or safetensors file.

    Raises:
        CheckpointError: the file is neither, is damaged, or was not exported from a checkpoint.
    """
    arrays, text = _read(path)
    if text is None:
        raise CheckpointError(
            f"{path} does not say what policy it is; expected a file of `townlet-train export`."
        )
    try:
        info = CheckpointInfo.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise CheckpointError(f"{path} describes its policy in a way this release does not read.") from error
    return NetworkPolicy(Checkpoint(info, arrays), deterministic=deterministic, name=path.name)


def _read(path: Path) -> tuple[Mapping[str, NDArray[Any]], str | None]:
    """The arrays of a file, and what they are where it says."""
    try:
        if zipfile.is_zipfile(path):
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            info = arrays.pop(INFO, None)
            return arrays, None if info is None else info.tobytes().decode("utf-8", "replace")
        with safe_open(path, framework="numpy") as opened:
            arrays = {name: opened.get_tensor(name) for name in opened.offset_keys()}
            return arrays, (opened.metadata() or {}).get(INFO)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is neither a whole npz nor safetensors file ({error}).") from error
