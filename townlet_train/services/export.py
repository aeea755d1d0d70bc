"""A checkpoint written in formats of other programs, each compared with it before it is left there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Checkpoint, load_checkpoint
from townlet_train.data.landing import check_file
from townlet_train.envs.protocol import Observation
from townlet_train.errors import ExportError, MissingExtraError, UnknownNameError
from townlet_train.files import atomic_path, sha256_of
from townlet_train.policies.exported import load_exported, write_npz, write_safetensors
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, NetworkPolicy, NetworkSpec
from townlet_train.policies.onnx_graph import onnx_bytes
from townlet_train.results import ExportDTO

ROWS = 1000
SEED = 20251121  # fixed, so that equal checkpoints are shown equal observations
SPREAD = 2.0  # standard deviations of the features that are shown
ALLOWED = 1e-4  # of 1 + the size of an output: what float32 sums differ by in another order
TORCH_CODE = "townlet_train.learners.torchscript"  # by name: nothing that lists commands may reach torch

Arrays = dict[str, NDArray[Any]]


class Format(NamedTuple):
    """How a policy is written, and how what was written acts: outputs (n, n_actions) for inputs by name."""

    write: Callable[[Path, Checkpoint, Arrays], None]
    act: Callable[[Path, Arrays], NDArray[Any]] | None  # None where nobody here can run it
    gives: tuple[str, ...] = ("logits", "actions")  # where actions are named; empty where a plugin knows


def export_checkpoint(
    path: Path,
    format_name: str,
    output: Path,
    *,
    overwrite: bool = False,
    formats: Mapping[str, Format] | None = None,
) -> ExportDTO:
    """Write a checkpoint's policy in another format, once it has been shown to act alike, or with a warning.

    Raises:
        UnknownNameError: there is no such format.
        UsageError: `output` is there already.
        StorageError: nothing can be written there.
        CheckpointError: the checkpoint cannot be read.
        MissingExtraError: the format needs what is not installed.
        ExportError: what was written acts otherwise; nothing is left.
    """
    known = FORMATS if formats is None else formats
    if format_name not in known:
        raise UnknownNameError("format", format_name, known)
    check_file(output, overwrite=overwrite)
    checkpoint = load_checkpoint(path)
    spec = NetworkSpec.from_document(checkpoint.info.network)
    inputs = _observations(spec, checkpoint)
    chosen = known[format_name]
    if chosen.act is None:
        with atomic_path(output) as partial:
            chosen.write(partial, checkpoint, inputs)
        unproven = f"Nobody here can run {format_name}, so {output} was not compared with the checkpoint."
        return ExportDTO(**_written(path, output, format_name), warnings=(unproven,))
    expected = _expected(checkpoint, spec, inputs)
    with atomic_path(output) as partial:
        chosen.write(partial, checkpoint, inputs)
        given = chosen.act(partial, inputs)
        if given.shape != expected.shape:
            raise ExportError(
                f"The {format_name} export of {path} puts out {given.dtype} of shape {given.shape}, expected "
                f"{expected.shape}. Nothing was left; report this to whoever made the format."
            )
        largest, alike = _compared(expected, given, vectors=spec.distribution == "gaussian")
        if not largest <= ALLOWED:
            raise ExportError(
                f"The {format_name} export of {path} acts otherwise: outputs differ by {largest:.2g}, expected at most "
                f"{ALLOWED:g}. Nothing was left; report this with the versions that `townlet-train doctor` tells."
            )
    takes = inputs if chosen.gives else {}
    return ExportDTO(
        **_written(path, output, format_name),
        inputs=tuple(
            f"{name}: {array.dtype} (n, {', '.join(map(str, array.shape[1:]))})"
            for name, array in takes.items()
        ),
        outputs=("actions",) if takes and spec.distribution == "gaussian" else chosen.gives,
        checked_rows=len(expected),
        largest_difference=largest,
        allowed_difference=ALLOWED,
        same_actions=alike,
    )


def _written(path: Path, output: Path, format_name: str) -> dict[str, Any]:
    """What was exported and what was left."""
    return {
        "checkpoint": str(path),
        "checkpoint_sha256": sha256_of(path),
        "output": str(output),
        "output_sha256": sha256_of(output),
        "format": format_name,
        "bytes": output.stat().st_size,
    }


def _observations(spec: NetworkSpec, checkpoint: Checkpoint) -> Arrays:
    """Random observations that the policy may meet, as the export takes them."""
    rng = np.random.default_rng(SEED)
    noise = rng.normal(0, SPREAD, (ROWS, spec.n_features))
    features = checkpoint.weights[FEATURE_MEAN] + checkpoint.weights[FEATURE_STD] * noise
    inputs: Arrays = {"features": features.astype(np.float32)}
    if spec.kind == "conflict_aware":
        inputs["maps"] = rng.integers(0, 2, (ROWS, *spec.map_shape)).astype(np.float32)
    if spec.distribution != "gaussian":
        mask = rng.random((ROWS, spec.n_actions)) < 0.6
        mask[np.arange(ROWS), rng.integers(0, spec.n_actions, ROWS)] = True
        inputs["action_mask"] = mask
    return inputs


def _as_observation(inputs: Arrays) -> Observation:
    """Rows as environments of one agent."""
    n_rows = len(inputs["features"])
    maps = inputs.get("maps", np.zeros((n_rows, 0, 0, 0), np.float32)).astype(np.uint8)
    mask = inputs.get("action_mask", np.zeros((n_rows, 0), np.bool_))
    return Observation(inputs["features"][:, None], maps[:, None], mask[:, None])


def _expected(checkpoint: Checkpoint, spec: NetworkSpec, inputs: Arrays) -> NDArray[Any]:
    """What the checkpoint's own policy puts out, (n, n_actions)."""
    return _outputs_of(
        NetworkPolicy(checkpoint, deterministic=True), inputs, vectors=spec.distribution == "gaussian"
    )


def _outputs_of(policy: NetworkPolicy, inputs: Arrays, *, vectors: bool) -> NDArray[Any]:
    observation = _as_observation(inputs)
    outputs = policy.act(observation, np.zeros(0)) if vectors else policy.logits(observation)
    return np.asarray(outputs[:, 0])


def _compared(expected: NDArray[Any], given: NDArray[Any], *, vectors: bool) -> tuple[float, int]:
    """The largest difference as a share of 1 + what is expected, and the rows that come to the same action."""
    apart = np.abs(given.astype(np.float64) - expected) / (1 + np.abs(expected))
    largest = float(np.nan_to_num(apart, nan=np.inf).max())
    if vectors:
        return largest, int((apart.max(axis=1) <= ALLOWED).sum())
    return largest, int((given.argmax(axis=1) == expected.argmax(axis=1)).sum())


def _act_exported(path: Path, inputs: Arrays) -> NDArray[Any]:
    return _outputs_of(load_exported(path, deterministic=True), inputs, vectors="action_mask" not in inputs)


def _write_onnx(path: Path, checkpoint: Checkpoint, inputs: Arrays) -> None:
    content = onnx_bytes(checkpoint)
    if find_spec("onnxruntime") is None:
        raise MissingExtraError("Checking an ONNX export", "onnx")
    path.write_bytes(content)


def _act_onnx(path: Path, inputs: Arrays) -> NDArray[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    [outputs] = session.run(["logits" if "action_mask" in inputs else "actions"], inputs)
    return np.asarray(outputs)


def _write_torchscript(path: Path, checkpoint: Checkpoint, inputs: Arrays) -> None:
    if find_spec("torch") is None:
        raise MissingExtraError("Export to TorchScript", "torch")
    import_module(TORCH_CODE).write_torchscript(path, checkpoint, inputs)


def _act_torchscript(path: Path, inputs: Arrays) -> NDArray[Any]:
    return np.asarray(import_module(TORCH_CODE).run_torchscript(path, inputs))


FORMATS = {
    "onnx": Format(_write_onnx, _act_onnx),
    "safetensors": Format(
        lambda path, checkpoint, inputs: write_safetensors(path, checkpoint), _act_exported
    ),
    "npz": Format(lambda path, checkpoint, inputs: write_npz(path, checkpoint), _act_exported),
    "torchscript": Format(_write_torchscript, _act_torchscript, gives=("logits",)),
}
