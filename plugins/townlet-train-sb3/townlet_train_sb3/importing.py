"""What a model file of Stable-Baselines3 says without its pickles: arrays by name, and settings in plain words."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from townlet_train.api import (
    Checkpoint,
    CheckpointError,
    EnvSpec,
    Lineage,
    NetworkSpec,
    RunConfig,
    UsageError,
    save_checkpoint,
    sha256_of,
    spec_of,
)
from townlet_train.learners.assembly import describe
from townlet_train_sb3.arrays import ACTOR, CRITIC, MEAN, SHARED, STD, UNCLIPPED, checkpoint_arrays
from townlet_train_sb3.command import SB3ImportDTO

Activation = Literal["tanh", "relu"]
ALGORITHM = "import-sb3"
DATA, POLICY, VERSION = "data", "policy.pth", "_stable_baselines3_version"
ACTIVATIONS: Mapping[str, Activation] = {"Tanh": "tanh", "ReLU": "relu"}
DEFAULT_ACTIVATION = "torch.nn.Tanh"  # of MlpPolicy, where nobody chose another
OWN_EXTRACTOR = "townlet_train_sb3.extractor.StandardisedFeatures"
ELSEWHERE = {  # arrays of other policies, by how their names begin
    "q_net": "DQN",
    "quantile_net": "QR-DQN",
    "actor.": "SAC, TD3 or DDPG",
    "critic.": "SAC, TD3 or DDPG",
    "lstm_": "a recurrent policy",
    "features_extractor.cnn": "a CnnPolicy",
    "features_extractor.extractors": "a MultiInputPolicy",
}


class Model(NamedTuple):
    """What was read of a model file."""

    path: Path
    data: Mapping[str, Any]  # plain words, and pickles that stay what they are
    arrays: Mapping[str, NDArray[Any]]
    version: str | None

    def refused(self, sentence: str) -> CheckpointError:
        """An error about this file."""
        return CheckpointError(f"{self.path} {sentence}")


def import_model(path: Path, env: str, output: Path, activation: Activation | None) -> SB3ImportDTO:
    """Make a checkpoint for an environment of a model file.

    Raises:
        CheckpointError: the file is no model of PPO or A2C with an MlpPolicy, or is of another environment.
        UsageError: `activation` is another than the file says.
        EnvironmentCreationError: the environment cannot be built.
    """
    model, spec = read_model(path), spec_of(RunConfig(env=env))
    check_spaces(model, spec)
    network = network_of(model, activation)
    check_fits(model, network, spec)
    weights = checkpoint_arrays(network, model.arrays)
    if network.feature_clip < UNCLIPPED:
        weights |= {
            MEAN: model.arrays["features_extractor.mean"],
            STD: model.arrays["features_extractor.std"],
        }
    unfit = next((name for name, array in weights.items() if not np.isfinite(array).all()), None)
    if unfit is not None:
        raise model.refused(f"holds numbers in {unfit!r} that are not finite.")
    seeds, sha256 = seeds_of(model), sha256_of(path)
    lineage = Lineage(training_seeds=seeds, parent_sha256=sha256)
    info = describe(ALGORITHM, network, spec, lineage, config_hash=None)
    return SB3ImportDTO(
        model=str(path),
        model_sha256=sha256,
        stable_baselines3=model.version,
        env=spec.env_id,
        hidden_sizes=network.hidden_sizes,
        activation=network.activation,
        training_seeds=seeds,
        checkpoint=str(output),
        checkpoint_sha256=save_checkpoint(output, Checkpoint(info, weights)),
    )


def read_model(path: Path) -> Model:
    """The plain words and arrays of a model file; its pickles are left alone.

    Raises:
        CheckpointError: it is no file that Stable-Baselines3's `save` wrote, or is damaged.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is no file, expected a zip that Stable-Baselines3's model.save(...) wrote."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "manifest.json" in names:
                raise CheckpointError(f"{path} is a checkpoint of townlet-train already. Use it as it is.")
            missing = next((name for name in (DATA, POLICY) if name not in names), None)
            if missing is not None:
                raise CheckpointError(
                    f"{path} is a zip archive without {missing!r}, expected a whole one that Stable-Baselines3's "
                    f"model.save(...) wrote."
                )
            text, pickled = archive.read(DATA), archive.read(POLICY)
            version = archive.read(VERSION).decode("utf-8", "replace").strip() if VERSION in names else None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a whole zip archive ({error}), expected one that Stable-Baselines3's model.save(...) wrote."
        ) from error
    try:
        data = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: {DATA!r} is not JSON ({error}).") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: {DATA!r} is a {type(data).__name__}, expected a JSON object.")
    return Model(path, data, _arrays(path, pickled), version)


def _arrays(path: Path, pickled: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of policy.pth, read by torch's loader that calls nothing but what makes arrays."""
    try:
        found = torch.load(io.BytesIO(pickled), map_location="cpu", weights_only=True)
        return {str(name): tensor.detach().numpy() for name, tensor in found.items()}
    except Exception as error:  # torch raises nearly anything, depending on what the bytes look like
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: {POLICY!r} is damaged or holds more than arrays, and is not unpickled ({first})."
        ) from error


def check_spaces(model: Model, spec: EnvSpec) -> None:
    """Refuse observations and actions that are no features and no named actions or vectors, and hidden normalisers.

    Raises:
        CheckpointError: as it says.
    """
    for what, known in (("observation_space", ("Box", "Discrete")), ("action_space", ("Box", "Discrete"))):
        found = _class(_plain(model, what).get(":type:"))
        if found not in known:
            raise model.refused(
                f"has the {what} {found or 'of no known kind'}, expected {' or '.join(known)}."
            )
    observations = _plain(model, "observation_space")
    if observations.get("dtype") == "uint8" and len(observations.get("_shape") or ()) == 3:
        raise model.refused("reads images, expected an MlpPolicy that reads features.")
    if model.data.get("_last_original_obs") is not None:
        raise model.refused(
            "learned from observations that VecNormalize standardised by numbers which are in another file, so what it "
            "does cannot be known from this one."
        )
    if model.data.get("use_sde"):
        raise model.refused(
            "explores by gSDE, whose actions are not drawn around their means by a deviation each."
        )
    module = str(_plain(model, "policy_class").get("__module__"))
    if not module.startswith("stable_baselines3."):
        raise model.refused(
            f"has a policy class of the module {module}, expected Stable-Baselines3's MlpPolicy."
        )


def network_of(model: Model, activation: Activation | None) -> NetworkSpec:
    """The network that names and shapes of arrays describe, with the activation that the file says or the user did.

    Raises:
        CheckpointError: they describe none of ours, or nobody says the activation.
        UsageError: the user says another activation than the file.
    """
    arrays = model.arrays
    for name in arrays:
        kind = next((kind for start, kind in ELSEWHERE.items() if name.startswith(start)), None)
        if kind is not None:
            raise model.refused(f"is of {kind} ({name!r}), expected PPO or A2C with an MlpPolicy.")
    shared = bool(_widths(arrays, SHARED))
    actor, critic = (_widths(arrays, trunk) for trunk in ((SHARED, SHARED) if shared else (ACTOR, CRITIC)))
    if not actor or actor != critic:
        raise model.refused(
            f"has hidden layers {[*actor]} in its actor and {[*critic]} in its critic, expected the same, at least one."
        )
    head = arrays.get("action_net.weight")
    if head is None:
        raise model.refused("holds no 'action_net.weight', expected PPO or A2C with an MlpPolicy.")
    trunk = SHARED if shared else ACTOR
    network = NetworkSpec(
        kind="mlp",
        n_features=arrays[f"{trunk}.0.weight"].shape[1],
        n_actions=head.shape[0],
        hidden_sizes=actor,
        activation=_activation(model, activation),
        feature_clip=_clip(model),
        distribution="gaussian" if "log_std" in arrays else "categorical",
        shared_trunk=shared,
    )
    _check_shapes(model, network)
    return network


def check_fits(model: Model, network: NetworkSpec, spec: EnvSpec) -> None:
    """Refuse a policy that sees or does other things than an environment has.

    Raises:
        CheckpointError: names the first that differs, with both numbers.
    """
    vectors = network.distribution == "gaussian"
    if vectors != bool(spec.action_low):
        has, lacks = ("vectors", "indices") if vectors else ("indices", "vectors")
        raise model.refused(f"has actions that are {has}, those of {spec.env_id} are {lacks}.")
    for what, ours, theirs in (
        ("features", network.n_features, len(spec.feature_names)),
        ("actions", network.n_actions, len(spec.action_low) or len(spec.action_names)),
    ):
        if ours != theirs:
            raise model.refused(
                f"has {ours} {what}, {spec.env_id} has {theirs}. Name the environment it was trained in by --env."
            )


def seeds_of(model: Model) -> tuple[tuple[int, int], ...]:
    """The seeds of the environments it trained in, from its own seed on; empty where it had none."""
    seed, n_envs = model.data.get("seed"), model.data.get("n_envs", 1)
    if not isinstance(seed, int) or not isinstance(n_envs, int) or n_envs < 1:
        return ()
    return ((seed, seed + n_envs - 1),)


def _activation(model: Model, given: Activation | None) -> Activation:
    said = _policy_kwargs(model)
    if said is None:
        if given is None:
            raise model.refused(
                "does not say its activation in plain words. Name it by --activation tanh or relu."
            )
        return given
    named = _class(said.get("activation_fn", DEFAULT_ACTIVATION))
    found = ACTIVATIONS.get(named)
    if found is None:
        raise model.refused(f"has the activation {named or said['activation_fn']!r}, expected Tanh or ReLU.")
    if given not in (None, found):
        raise UsageError(
            f"{model.path} says that its activation is {found}, --activation {given}. Leave it out."
        )
    return found


def _clip(model: Model) -> float:
    """Where features are cut off: nowhere, but where the file is one that `export --format sb3` wrote."""
    said = _policy_kwargs(model) or {}
    extractor = said.get("features_extractor_class", "FlattenExtractor")
    if _class(extractor) == "FlattenExtractor":
        return UNCLIPPED
    kwargs = said.get("features_extractor_kwargs")
    clip = kwargs.get("clip") if isinstance(kwargs, dict) else None
    if OWN_EXTRACTOR not in str(extractor) or not isinstance(clip, int | float):
        raise model.refused(f"reads features through {extractor}, expected them as they are.")
    return float(clip)


def _check_shapes(model: Model, network: NetworkSpec) -> None:
    """Every array of the network is there in its shape, and nothing that would have a part in what it does."""
    wanted = network.parameter_shapes()
    if network.feature_clip < UNCLIPPED:
        extractors = ("features_extractor", "pi_features_extractor", "vf_features_extractor")
        wanted |= {
            f"{name}.{array}": (network.n_features,) for name in extractors for array in ("mean", "std")
        }
    for name in sorted({*wanted, *model.arrays}):
        found = model.arrays[name].shape if name in model.arrays else None
        if found != wanted.get(name):
            raise model.refused(
                f"has the array {name!r} as {found}, expected {wanted.get(name)} of an MlpPolicy."
            )


def _widths(arrays: Mapping[str, NDArray[Any]], trunk: str) -> tuple[int, ...]:
    """The hidden layers of a trunk, whose odd indices are activations."""
    widths: list[int] = []
    while f"{trunk}.{2 * len(widths)}.weight" in arrays:
        widths.append(len(arrays[f"{trunk}.{2 * len(widths)}.weight"]))
    return tuple(widths)


def _policy_kwargs(model: Model) -> Mapping[str, Any] | None:
    """The arguments of the policy as far as they are told in plain words; None where they are no mapping."""
    said = model.data.get("policy_kwargs") or {}
    pickled = isinstance(said, dict) and ":serialized:" in said
    readable = isinstance(said, dict) and (not pickled or _class(said.get(":type:")) == "dict")
    return said if readable else None


def _plain(model: Model, name: str) -> Mapping[str, Any]:
    """What is written beside a pickle; nothing where there is none."""
    found = model.data.get(name)
    return found if isinstance(found, dict) else {}


def _class(said: object) -> str:
    """The name of the class in what `str` says of one, or an empty string.

    >>> _class("<class 'torch.nn.modules.activation.ReLU'>"), _class("torch.nn.Tanh"), _class(3)
    ('ReLU', 'Tanh', '')
    """
    found = re.fullmatch(r"(?:<class ')?([\w.]*?)(\w+)(?:'>)?", said) if isinstance(said, str) else None
    return "" if found is None else found[2]
