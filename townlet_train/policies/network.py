"""A checkpoint that acts, without torch: a network's forward pass in NumPy, and sampling from a uniform draw.

The learners build the same networks in torch from the same `NetworkSpec`, with the same parameter names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from townlet_train.data.checkpoint import Arrays, Checkpoint
from townlet_train.envs.protocol import Actions, Observation
from townlet_train.errors import CheckpointError, DataError

NetworkKind = Literal["mlp", "conflict_aware"]
Activation = Literal["tanh", "relu"]
DistributionKind = Literal["categorical", "gaussian"]
Float = NDArray[np.float32]

ILLEGAL_LOGIT = -1e8  # finite, so that a row without any legal action gives no NaN
FEATURE_MEAN, FEATURE_STD = "normaliser.mean", "normaliser.std"
LOG_STD = "log_std"


@dataclass(frozen=True)
class NetworkSpec:
    """Kind and sizes of a network; enough to build it and to know its parameters by name and shape.

    "mlp" reads the features through separate actor and critic trunks, named as Stable-Baselines3's MlpPolicy names
    them, or through one `shared_trunk`. "conflict_aware" reads map and features through an encoder each, named as in
    upstream's ConflictAwarePolicyNetwork; `hidden_sizes` is then a single width.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kind: NetworkKind
    n_features: int
    n_actions: int
    hidden_sizes: tuple[int, ...]
    activation: Activation = "tanh"
    map_shape: tuple[int, int, int] = (0, 0, 0)
    feature_clip: float = (
        10.0  # standardised features are cut to +-this, so a rare feature cannot swamp the rest
    )
    distribution: DistributionKind = (
        "categorical"  # gaussian: n_actions real numbers around a mean, one `log_std` each
    )
    shared_trunk: bool = False  # of an mlp; conflict_aware has no other

    def __post_init__(self) -> None:
        if not self.hidden_sizes or (self.kind == "conflict_aware" and len(self.hidden_sizes) != 1):
            wanted = "one hidden size" if self.kind == "conflict_aware" else "at least one hidden size"
            raise ValueError(f"a {self.kind!r} network has {wanted}, got {self.hidden_sizes}")
        if self.shared_trunk and self.kind != "mlp":
            raise ValueError(f"shared_trunk is a choice of an mlp, {self.kind!r} has no other")
        if min(self.n_features, self.n_actions, *self.hidden_sizes) < 1:
            raise ValueError("features, actions and hidden sizes are at least 1")
        if not 0 < self.feature_clip < math.inf:
            raise ValueError(f"features are cut to a positive number, got {self.feature_clip}")

    def to_document(self) -> dict[str, Any]:
        """Plain JSON types, for a checkpoint's manifest."""
        document = asdict(self) | {"hidden_sizes": [*self.hidden_sizes], "map_shape": [*self.map_shape]}
        if not self.shared_trunk:
            del document[
                "shared_trunk"
            ]  # separate trunks are described as they were before there was a choice
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> NetworkSpec:
        """The spec a checkpoint's manifest holds; `CheckpointError` when it describes no network we know."""
        try:
            return TypeAdapter(cls).validate_json(json.dumps(document), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CheckpointError(
                f"The checkpoint's network description is wrong, {where or 'as a whole'}: {first['msg']}, "
                f"got {first['input']!r:.80}."
            ) from error

    @property
    def shares_trunk(self) -> bool:
        """Whether actor and critic read the same last hidden layer, so that a value costs next to nothing."""
        return self.kind == "conflict_aware" or self.shared_trunk

    @property
    def actor_trunk(self) -> str:
        """The name of the hidden layers that an MLP's actor reads the features through."""
        return f"mlp_extractor.{'shared_net' if self.shared_trunk else 'policy_net'}"

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every trainable array by name and shape, those that decide the action first."""
        return self.actor_shapes() | self.critic_shapes()

    def actor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays that decide the action; imitation trains these alone."""
        spread = {LOG_STD: (self.n_actions,)} if self.distribution == "gaussian" else {}
        return _shapes(self._actor_layers()) | spread

    def critic_shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays that values alone depend on."""
        return _shapes(self._critic_layers())

    def hidden_layers(self, trunk: str) -> dict[str, tuple[int, int]]:
        """An MLP trunk's layers as (n_out, n_in); odd indices are activations, as in a torch Sequential."""
        sizes = (self.n_features, *self.hidden_sizes)
        return {f"{trunk}.{2 * i}": (sizes[i + 1], sizes[i]) for i in range(len(self.hidden_sizes))}

    def _actor_layers(self) -> dict[str, tuple[int, int]]:
        if self.kind == "conflict_aware":
            (width,) = self.hidden_sizes
            return {
                "map_encoder.1": (width, math.prod(self.map_shape)),
                "feature_encoder.0": (width, self.n_features),
                "shared.0": (width, 2 * width),
                "policy_head": (self.n_actions, width),
            }
        head = {"action_net": (self.n_actions, self.hidden_sizes[-1])}
        return self.hidden_layers(self.actor_trunk) | head

    def _critic_layers(self) -> dict[str, tuple[int, int]]:
        if self.kind == "conflict_aware":
            return {"value_head": (1, self.hidden_sizes[0])}
        trunk = {} if self.shared_trunk else self.hidden_layers("mlp_extractor.value_net")
        return trunk | {"value_net": (1, self.hidden_sizes[-1])}


class NetworkPolicy:
    """The policy a checkpoint holds: greedy among the legal actions, or sampled with the given draws.

    Raises `CheckpointError` when the arrays are not those of the network the checkpoint describes.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, deterministic: bool = False, name: str = "checkpoint"
    ) -> None:
        self.name = name
        self.deterministic = deterministic
        self._spec = NetworkSpec.from_document(checkpoint.info.network)
        self._weights = _checked_weights(self._spec, checkpoint.weights)

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
        """Actions for draws in [0, 1), both (n_envs, n_agents), or (n_envs, n_agents, n_actions) real numbers."""
        if self._spec.distribution == "gaussian":
            mean = self._outputs(observation)
            return mean if self.deterministic else sample_gaussian(mean, self._weights[LOG_STD], uniforms)
        logits = self.logits(observation)
        if self.deterministic:
            return np.asarray(logits.argmax(axis=-1), np.int64)
        return sample(logits, uniforms)

    def logits(self, observation: Observation) -> Float:
        """Masked logits (n_envs, n_agents, n_actions); an illegal action's is `ILLEGAL_LOGIT`."""
        mask = observation.action_mask
        if not mask.any(axis=-1).all():
            raise DataError("An agent has no legal action: its action mask is False everywhere.")
        return np.where(mask, self._outputs(observation), np.float32(ILLEGAL_LOGIT))

    def _outputs(self, observation: Observation) -> Float:
        """What the network puts out, (n_envs, n_agents, n_actions)."""
        features, maps, _ = observation
        rows = features.shape[:-1]
        flat = features.reshape(-1, features.shape[-1])
        outputs = compute_logits(self._spec, self._weights, flat, maps.reshape(len(flat), *maps.shape[2:]))
        return outputs.reshape(*rows, -1)


def compute_logits(spec: NetworkSpec, weights: Arrays, features: Float, maps: NDArray[Any]) -> Float:
    """Unmasked logits or means (n, n_actions) of features (n, n_features), maps (n, channels, height, width)."""

    def affine(layer: str, inputs: Float) -> Float:
        return inputs @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]

    def dense(layer: str, inputs: Float) -> Float:
        outputs = affine(layer, inputs)
        return (
            np.tanh(outputs, out=outputs)
            if spec.activation == "tanh"
            else np.maximum(outputs, 0, out=outputs)
        )

    hidden = normalise(features, weights[FEATURE_MEAN], weights[FEATURE_STD], spec.feature_clip)
    if spec.kind == "conflict_aware":
        flat_maps = maps.reshape(len(maps), -1).astype(np.float32)
        encoded = dense("map_encoder.1", flat_maps), dense("feature_encoder.0", hidden)
        return affine("policy_head", dense("shared.0", np.concatenate(encoded, axis=1)))
    for layer in spec.hidden_layers(spec.actor_trunk):
        hidden = dense(layer, hidden)
    return affine("action_net", hidden)


def normalise(features: Float, mean: Float, std: Float, clip: float) -> Float:
    """Features standardised by a frozen mean and deviation (n_features,), cut to +-clip."""
    standardised = (features - mean) / std
    return np.clip(standardised, -clip, clip, out=standardised)


def sample(logits: Float, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """The action whose share of the distribution the draw falls into, over the last axis of masked `logits`.

    An action of no probability is never returned, also for a draw beside 0 or 1.
    """
    weights = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float64))
    cumulative = weights.cumsum(axis=-1)
    total = cumulative[..., -1]
    below_total = np.minimum(uniforms * total, np.nextafter(total, 0.0))
    return np.asarray((cumulative > below_total[..., None]).argmax(axis=-1), np.int64)


def sample_gaussian(mean: Float, log_std: Float, uniforms: NDArray[np.float64]) -> Float:
    """Real numbers around `mean` (..., n_dimensions), each at its draw's quantile of the normal distribution."""
    inside = np.clip(uniforms, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).eps)
    quantiles = [NormalDist().inv_cdf(draw) for draw in inside.ravel().tolist()]
    noise = np.reshape(np.array(quantiles, np.float32), mean.shape)
    return np.asarray(mean + np.exp(log_std) * noise, np.float32)


def _shapes(layers: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Weight and bias of every layer by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (n_out, n_in) in layers.items():
        shapes |= {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}
    return shapes


def _checked_weights(spec: NetworkSpec, weights: Arrays) -> dict[str, Float]:
    """The network's arrays, present, of the right shape and finite."""
    normaliser = {FEATURE_MEAN: (spec.n_features,), FEATURE_STD: (spec.n_features,)}
    for name, shape in (spec.parameter_shapes() | normaliser).items():
        if name not in weights:
            raise CheckpointError(f"The checkpoint's {spec.kind!r} network lacks the array {name!r}.")
        if weights[name].shape != shape:
            raise CheckpointError(
                f"The checkpoint's array {name!r} has shape {weights[name].shape}, expected {shape}."
            )
        if not np.isfinite(weights[name]).all():
            raise CheckpointError(f"The checkpoint's array {name!r} holds numbers that are not finite.")
    return {name: np.asarray(array, np.float32) for name, array in weights.items()}
