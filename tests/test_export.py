"""An exported policy acts as its checkpoint does, wherever it runs; what does not is not left there."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from townlet_train.cli import main
from townlet_train.data.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from townlet_train.envs.protocol import Observation
from townlet_train.errors import CheckpointError, ExitCode, ExportError, StorageError, UsageError
from townlet_train.policies.exported import load_exported, write_npz
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, NetworkPolicy, NetworkSpec
from townlet_train.services.export import FORMATS, Format, export_checkpoint

NETWORKS = {
    "mlp": NetworkSpec("mlp", 5, 3, (8, 6)),
    "relu": NetworkSpec("mlp", 5, 3, (8,), activation="relu"),
    "shared trunk": NetworkSpec("mlp", 5, 3, (8, 6), shared_trunk=True),
    "vectors": NetworkSpec("mlp", 5, 2, (8, 6), distribution="gaussian"),
    "map": NetworkSpec("conflict_aware", 5, 4, (7,), map_shape=(2, 3, 3)),
}
NEEDS = {"onnx": ("onnx", "onnxruntime"), "torchscript": ("torch",), "npz": (), "safetensors": ()}

TORCHSCRIPT = pytest.param("torchscript", marks=pytest.mark.torch)
ANY_FORMAT = [*(name for name in NEEDS if name != "torchscript"), TORCHSCRIPT]


def checkpoint_of(path: Path, spec: NetworkSpec, *, scale: float = 1.0) -> Path:
    """A checkpoint with random weights, whose normaliser does something."""
    rng = np.random.default_rng(7)
    weights = {
        name: rng.normal(0, scale, shape).astype(np.float32)
        for name, shape in spec.parameter_shapes().items()
    }
    weights[FEATURE_MEAN] = rng.normal(3, 2, spec.n_features).astype(np.float32)
    weights[FEATURE_STD] = rng.uniform(0.5, 4, spec.n_features).astype(np.float32)
    vectors = spec.distribution == "gaussian"
    info = CheckpointInfo(
        algorithm="made_up",
        env_id="made-up",
        feature_names=tuple(f"feature_{index}" for index in range(spec.n_features)),
        action_names=() if vectors else tuple(f"action_{index}" for index in range(spec.n_actions)),
        action_bounds=((-1.0, 1.0),) * spec.n_actions if vectors else (),
        map_channels=tuple(f"channel_{index}" for index in range(spec.map_shape[0])),
        map_size=spec.map_shape[1],
        network=spec.to_document(),
    )
    save_checkpoint(path, Checkpoint(info, weights))
    return path


def seen(spec: NetworkSpec, n_envs: int = 40) -> Observation:
    """What 40 environments of 2 agents might show."""
    rng = np.random.default_rng(8)
    shape = (n_envs, 2)
    n_actions = 0 if spec.distribution == "gaussian" else spec.n_actions
    mask = rng.random((*shape, n_actions)) < 0.5
    mask[..., :1] = True
    return Observation(
        rng.normal(3, 3, (*shape, spec.n_features)).astype(np.float32),
        rng.integers(0, 3, (*shape, *spec.map_shape)).astype(np.uint8),
        mask,
    )


def skip_without(format_name: str) -> None:
    for module in NEEDS[format_name]:
        pytest.importorskip(module)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "format_name",
    [
        *(name for name in NEEDS if name != "torchscript"),
        pytest.param("torchscript", marks=pytest.mark.torch),
    ],
)
def test_every_network_acts_alike_in_every_format(tmp_path: Path, network: str, format_name: str) -> None:
    skip_without(format_name)
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS[network])
    exported = export_checkpoint(path, format_name, tmp_path / "out")
    assert exported.same_actions == exported.checked_rows == 1000
    assert exported.largest_difference <= exported.allowed_difference
    assert (tmp_path / "out").stat().st_size == exported.bytes


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("format_name", ["npz", "safetensors"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_the_runner_takes_the_checkpoints_own_actions(
    tmp_path: Path, network: str, format_name: str, deterministic: bool
) -> None:
    spec = NETWORKS[network]
    path = checkpoint_of(tmp_path / "policy.zip", spec)
    export_checkpoint(path, format_name, tmp_path / "out")
    observation = seen(spec)
    dims = (spec.n_actions,) if spec.distribution == "gaussian" else ()
    uniforms = np.random.default_rng(9).random((40, 2, *dims))
    ours = NetworkPolicy(load_checkpoint(path), deterministic=deterministic)
    theirs = load_exported(tmp_path / "out", deterministic=deterministic)
    np.testing.assert_array_equal(theirs.act(observation, uniforms), ours.act(observation, uniforms))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_runtime_alone_reads_an_onnx_file_for_any_number_of_rows(tmp_path: Path, network: str) -> None:
    skip_without("onnx")
    import onnxruntime

    spec = NETWORKS[network]
    path = checkpoint_of(tmp_path / "policy.zip", spec)
    export_checkpoint(path, "onnx", tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    observation = seen(spec, n_envs=3)
    fed = {
        "features": observation.features.reshape(6, -1),
        "action_mask": observation.action_mask.reshape(6, -1),
    }
    fed["maps"] = observation.maps.reshape(6, *spec.map_shape).astype(np.float32)
    given = session.run(["actions"], {each.name: fed[each.name] for each in session.get_inputs()})[0]
    expected = NetworkPolicy(load_checkpoint(path), deterministic=True).act(observation, np.zeros(0))
    np.testing.assert_allclose(given, expected.reshape(given.shape), rtol=1e-4, atol=1e-4)
    info = json.loads(session.get_modelmeta().custom_metadata_map["townlet_train.info"])
    assert info["feature_names"] == [f"feature_{index}" for index in range(5)]


def test_what_acts_otherwise_is_refused_and_not_left(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS["mlp"])
    other = load_checkpoint(checkpoint_of(tmp_path / "other.zip", NETWORKS["mlp"], scale=1.001))
    wrong = Format(lambda target, checkpoint, inputs: write_npz(target, other), FORMATS["npz"].act)
    (tmp_path / "out").write_text("what was there")
    with pytest.raises(ExportError, match=r"acts otherwise: outputs differ by .* Nothing was left"):
        export_checkpoint(path, "npz", tmp_path / "out", overwrite=True, formats={"npz": wrong})
    assert (tmp_path / "out").read_text() == "what was there"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["other.zip", "out", "policy.zip"]


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file is neither a whole npz nor safetensors file"):
        load_exported(tmp_path / "file")


def test_arrays_of_somebody_else_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", weights=np.zeros(3))
    with pytest.raises(CheckpointError, match="does not say what policy it is"):
        load_exported(tmp_path / "file.npz")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_exported(tmp_path / "nowhere")


def test_an_export_in_the_place_of_another_has_to_be_asked_for(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS["mlp"])
    for _ in range(2):
        export_checkpoint(path, "npz", tmp_path / "out", overwrite=True)
    with pytest.raises(UsageError, match=r"out exists\. Choose another --output or pass --overwrite\."):
        export_checkpoint(path, "npz", tmp_path / "out")
    with pytest.raises((UsageError, StorageError)):
        export_checkpoint(path, "npz", tmp_path / "out" / "below")


BAD = {
    "another format": (
        ["policy.zip", "--format", "onx", "--output", "o"],
        ExitCode.USAGE,
        "Did you mean 'onnx'?",
    ),
    "no format": (["policy.zip", "--output", "o"], ExitCode.USAGE, "Missing option '--format'"),
    "no output": (["policy.zip", "--format", "npz"], ExitCode.USAGE, "Missing option '--output'"),
    "no checkpoint": (
        ["gone.zip", "--format", "npz", "--output", "o"],
        ExitCode.CHECKPOINT,
        "gone.zip does not exist",
    ),
    "a torn one": (
        ["torn.zip", "--format", "npz", "--output", "o"],
        ExitCode.CHECKPOINT,
        "is not a whole zip archive",
    ),
    "a directory": (
        ["policy.zip", "--format", "npz", "--output", "."],
        ExitCode.USAGE,
        "is a directory; expected a file to write",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint_of(tmp_path / "policy.zip", NETWORKS["mlp"])
    (tmp_path / "torn.zip").write_bytes((tmp_path / "policy.zip").read_bytes()[:400])
    arguments, code, sentence = BAD[kind]
    assert main(["export", *arguments]) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_torchscript_without_torch_names_the_command_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_of(tmp_path / "policy.zip", NETWORKS["mlp"])
    code = main(["export", str(path), "--format", "torchscript", "--output", str(tmp_path / "out")])
    assert code == ExitCode.ENVIRONMENT
    assert "pip install 'townlet-train[torch]'" in capsys.readouterr().err
