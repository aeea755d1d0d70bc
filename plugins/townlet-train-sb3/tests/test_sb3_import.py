"""A model file of Stable-Baselines3 becomes a checkpoint that acts alike, or is refused; it is never unpickled."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.torch

import gymnasium  # noqa: E402
import torch  # noqa: E402
from stable_baselines3 import A2C, DQN, PPO  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.vec_env import VecNormalize  # noqa: E402

from townlet_train.api import NetworkPolicy, NetworkSpec, Observation, load_checkpoint, sha256_of  # noqa: E402
from townlet_train.cli import main  # noqa: E402
from townlet_train_sb3.command import SB3ImportDTO  # noqa: E402
from townlet_train_sb3.importing import network_of, read_model  # noqa: E402

MODELS: dict[str, Callable[[], Any]] = {
    "ppo": lambda: PPO("MlpPolicy", "CartPole-v1", seed=1, n_steps=64, device="cpu"),
    "a2c": lambda: A2C("MlpPolicy", "CartPole-v1", seed=1, device="cpu"),
    "ppo, relu and widths": lambda: PPO(
        "MlpPolicy",
        "CartPole-v1",
        n_steps=64,
        policy_kwargs={"net_arch": [16, 8], "activation_fn": torch.nn.ReLU},
        device="cpu",
    ),
    "ppo, widths alone": lambda: PPO(
        "MlpPolicy", "CartPole-v1", n_steps=64, policy_kwargs={"net_arch": [16]}, device="cpu"
    ),
    "ppo of vectors": lambda: PPO("MlpPolicy", "Pendulum-v1", n_steps=64, device="cpu"),
    "ppo of places by number": lambda: PPO("MlpPolicy", "FrozenLake-v1", n_steps=64, device="cpu"),
}
ENVS = {"ppo of vectors": "Pendulum-v1", "ppo of places by number": "FrozenLake-v1"}


def import_sb3(path: Path, output: Path, *options: str, env: str = "CartPole-v1") -> int:
    return main(["import-sb3", str(path), "--env", env, "--output", str(output), *options])


def acted(checkpoint: Path, features: NDArray[np.float32]) -> NDArray[Any]:
    """The most probable actions of a checkpoint's policy."""
    loaded = load_checkpoint(checkpoint)
    mask = np.ones((len(features), 1, len(loaded.info.action_names)), np.bool_)
    observation = Observation(features[:, None], np.zeros((len(features), 1, 0, 0, 0), np.uint8), mask)
    policy = NetworkPolicy(loaded, deterministic=True)
    return np.asarray(policy.act(observation, np.zeros((len(features), 1))))[:, 0]


@pytest.mark.parametrize("kind", MODELS)
def test_an_imported_policy_does_what_predict_does_on_1000_observations(kind: str, tmp_path: Path) -> None:
    model = MODELS[kind]().learn(256)
    model.save(tmp_path / "model.zip")
    assert import_sb3(tmp_path / "model.zip", tmp_path / "policy.zip", env=ENVS.get(kind, "CartPole-v1")) == 0
    rng = np.random.default_rng(0)
    if kind == "ppo of places by number":
        shown: Any = rng.integers(0, 16, 1000)
        features = np.eye(16, dtype=np.float32)[shown]
    else:
        features = shown = rng.normal(0, 2, (1000, model.observation_space.shape[0])).astype(np.float32)
    expected, _ = PPO.load(tmp_path / "model.zip").predict(shown, deterministic=True)
    given = acted(tmp_path / "policy.zip", features)
    if kind == "ppo of vectors":
        np.testing.assert_allclose(given.clip(-2, 2), expected, atol=1e-5)
    else:
        np.testing.assert_array_equal(given, expected)


def test_its_lineage_names_the_file_and_the_seeds_it_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 3), seed=11, n_steps=64, device="cpu")
    model.save(tmp_path / "model.zip")
    assert import_sb3(tmp_path / "model.zip", tmp_path / "policy.zip", "--json") == 0
    told = SB3ImportDTO.model_validate_json(capsys.readouterr().out)
    info = load_checkpoint(tmp_path / "policy.zip").info
    assert info.lineage.parent_sha256 == told.model_sha256
    assert told.model_sha256 == hashlib.sha256((tmp_path / "model.zip").read_bytes()).hexdigest()
    assert info.lineage.training_seeds == told.training_seeds == ((11, 13),)
    assert (told.activation, told.hidden_sizes, told.env) == ("tanh", (64, 64), "CartPole-v1")
    assert told.checkpoint_sha256 == sha256_of(tmp_path / "policy.zip")
    assert (
        main(["evaluate", str(tmp_path / "policy.zip"), "--episodes", "2", "--seed", "11", "--json"]) == 1
    )  # it trained on them


def test_every_field_of_its_document_is_on_the_plugins_page() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text()
    section = page.partition("| field with `--json` |")[2]
    own = SB3ImportDTO.model_fields.keys() - {"schema_version", "warnings"}
    assert all(f"`{name}`" in section for name in own)


# What is refused


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def small(path: Path, **options: Any) -> Path:
    return saved(PPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu", **options), path)


def edited(path: Path, **entries: Any) -> Path:
    """A model file whose `data` says other things; None takes an entry out."""
    with zipfile.ZipFile(small(path)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"]) | entries
    members["data"] = json.dumps({name: value for name, value in data.items() if value is not None}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def without(path: Path, member: str) -> Path:
    with zipfile.ZipFile(small(path)) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != member}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def text(path: Path) -> Path:
    path.write_text("this is no archive")
    return path


def cut(path: Path) -> Path:
    content = small(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def normalised(path: Path) -> Path:
    model = PPO("MlpPolicy", VecNormalize(make_vec_env("CartPole-v1", 1)), n_steps=64, device="cpu")
    return saved(model.learn(64), path)


class Pixels(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda path: path, "is no file"),
    "a folder": (lambda path: path.parent, "is no file"),
    "no archive": (text, "is not a whole zip archive"),
    "half an archive": (cut, "without 'data', expected a whole one"),  # and whole ones in it
    "no policy": (lambda path: without(path, "policy.pth"), "without 'policy.pth'"),
    "no data": (lambda path: without(path, "data"), "without 'data'"),
    "another algorithm": (
        lambda path: saved(DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu"), path),
        "is of DQN ('q_net.",
    ),
    "images": (
        lambda path: saved(PPO("CnnPolicy", Pixels(), n_steps=4, batch_size=4, device="cpu"), path),
        "reads images",
    ),
    "another environment": (
        lambda path: saved(PPO("MlpPolicy", "Acrobot-v1", n_steps=64, device="cpu"), path),
        "has 6 features, CartPole-v1 has 4",
    ),
    "vectors for indices": (
        lambda path: saved(PPO("MlpPolicy", "Pendulum-v1", n_steps=64, device="cpu"), path),
        "has actions that are vectors, those of CartPole-v1 are indices",
    ),
    "gSDE": (
        lambda path: saved(PPO("MlpPolicy", "Pendulum-v1", n_steps=64, use_sde=True, device="cpu"), path),
        "explores by gSDE",
    ),
    "VecNormalize": (normalised, "VecNormalize standardised"),
    "trunks apart": (
        lambda path: small(path, policy_kwargs={"net_arch": {"pi": [8], "vf": [16]}}),
        "has hidden layers [8] in its actor and [16] in its critic",
    ),
    "no layers": (
        lambda path: small(path, policy_kwargs={"net_arch": []}),
        "expected the same, at least one",
    ),
    "another activation": (
        lambda path: small(path, policy_kwargs={"activation_fn": torch.nn.ELU}),
        "has the activation 'ELU', expected Tanh or ReLU",
    ),
    "words that say nothing": (
        lambda path: edited(path, policy_kwargs={":type:": "<class 'x.Settings'>", ":serialized:": "gA=="}),
        "does not say its activation in plain words. Name it by --activation",
    ),
    "no spaces": (
        lambda path: edited(path, observation_space=None),
        "has the observation_space of no known kind",
    ),
    "a policy of the user's": (
        lambda path: edited(path, policy_class={"__module__": "__main__"}),
        "has a policy class of the module __main__",
    ),
    "an extractor of the user's": (
        lambda path: edited(path, policy_kwargs={"features_extractor_class": "<class 'mine.Extractor'>"}),
        "reads features through <class 'mine.Extractor'>",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_known_is_refused_in_one_sentence(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, sentence = REFUSED[kind]
    path = make(tmp_path / "model.zip")
    assert import_sb3(path, tmp_path / "policy.zip") == 6
    told = capsys.readouterr().err
    assert sentence in told
    assert str(path) in told
    assert not (tmp_path / "policy.zip").exists()


def test_our_own_checkpoint_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(tmp_path / "model.zip")
    assert import_sb3(tmp_path / "model.zip", tmp_path / "policy.zip") == 0
    assert import_sb3(tmp_path / "policy.zip", tmp_path / "again.zip") == 6
    assert "is a checkpoint of townlet-train already" in capsys.readouterr().err


def test_what_is_there_stays_unless_it_is_to_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "model.zip")
    (tmp_path / "policy.zip").write_text("mine")
    assert import_sb3(tmp_path / "model.zip", tmp_path / "policy.zip", "--json") == 3
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "UsageError"
    assert (tmp_path / "policy.zip").read_text() == "mine"
    assert import_sb3(tmp_path / "model.zip", tmp_path / "policy.zip", "--overwrite") == 0


def test_an_environment_that_does_not_exist_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_sb3(small(tmp_path / "model.zip"), tmp_path / "policy.zip", env="CartPol-v1") == 5
    assert "Did you mean 'CartPole-v1'" in capsys.readouterr().err


def test_the_user_says_the_activation_only_where_the_file_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = edited(tmp_path / "silent.zip", policy_kwargs="words")
    assert import_sb3(silent, tmp_path / "silent_policy.zip", "--activation", "relu") == 0
    assert load_checkpoint(tmp_path / "silent_policy.zip").info.network["activation"] == "relu"
    capsys.readouterr()
    assert import_sb3(small(tmp_path / "model.zip"), tmp_path / "p.zip", "--activation", "relu") == 3
    assert "says that its activation is tanh, --activation relu" in capsys.readouterr().err


class Payload:
    """What a hostile file pickles: unpickled, it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.write_text, (self.trace, "unpickled")


def test_no_pickle_in_a_hostile_file_is_ever_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    hostile = base64.b64encode(pickle.dumps(Payload(trace))).decode()
    pickle.loads(base64.b64decode(hostile))
    assert trace.read_text() == "unpickled"  # it works where it is let
    trace.unlink()
    path = edited(tmp_path / "model.zip", policy_kwargs={":type:": "<class 'dict'>", ":serialized:": hostile})
    assert import_sb3(path, tmp_path / "policy.zip") == 0
    content = io.BytesIO()
    torch.save({"action_net.weight": Payload(trace)}, content)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | {
            "policy.pth": content.getvalue()
        }
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    assert import_sb3(path, tmp_path / "policy.zip", "--overwrite") == 6
    assert "is damaged or holds more than arrays" in capsys.readouterr().err
    assert not trace.exists()


def test_the_one_trunk_of_older_files_is_a_shared_one(tmp_path: Path) -> None:
    spec = NetworkSpec("mlp", 4, 2, (8, 6), feature_clip=1e9, shared_trunk=True)
    model = read_model(small(tmp_path / "model.zip"))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in spec.parameter_shapes().items()}
    assert network_of(model._replace(arrays=arrays), None) == spec
