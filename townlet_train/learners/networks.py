"""The networks in torch, built from a `NetworkSpec`; their state dict is a checkpoint's `weights`, name for name."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from townlet_train.data.checkpoint import Arrays
from townlet_train.envs.protocol import EnvSpec
from townlet_train.errors import CheckpointError, ConfigError
from townlet_train.policies.network import ILLEGAL_LOGIT, Activation, NetworkKind
from townlet_train.policies.network import NetworkSpec as NetworkSpec  # for plugins, which see learners only

HIDDEN_SIZES: dict[NetworkKind, tuple[int, ...]] = {"mlp": (64, 64), "conflict_aware": (256,)}
UNCLIPPED = 1e9  # features reach the network as they are, where nothing standardises them
FEATURE_CLIP = 10.0  # deviations
BY_INPUT = ("map_encoder.1.weight",)  # an input is mostly 0 here, so what one multiplies is kept together
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class FeatureNormaliser(nn.Module):
    """Features standardised by a mean and deviation that are frozen after the data was seen once."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_features: int, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))

    def forward(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.std).clamp(-self.clip, self.clip)


class PolicyNetwork(nn.Module):
    """What every network here offers: masked logits and a value from raw features and maps."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.normaliser = FeatureNormaliser(spec.n_features, spec.feature_clip)
        if spec.distribution == "gaussian":
            self.log_std = nn.Parameter(torch.zeros(spec.n_actions))

    @property
    def feature_layers(self) -> list[nn.Linear]:
        """The layers that read the standardised features."""
        raise NotImplementedError

    @torch.no_grad()
    def restandardise(self, mean: Tensor, std: Tensor) -> None:
        """Standardise features otherwise and say the same as before, but where they are cut off.

        With x' = (x - mean') / std', W (x - mean) / std + b = (W std' / std) x' + b + W (mean' - mean) / std.
        """
        normaliser = self.normaliser
        for layer in self.feature_layers:
            layer.bias.add_(layer.weight @ ((mean - normaliser.mean) / normaliser.std))
            layer.weight.mul_(std / normaliser.std)
        normaliser.mean.copy_(mean)
        normaliser.std.copy_(std)

    def forward(self, features: Tensor, maps: Tensor | None, action_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, n_actions), those of illegal actions at `ILLEGAL_LOGIT`, and values (n,)."""
        logits, values = self.heads(self.normaliser(features), maps)
        return logits.masked_fill(~action_mask, ILLEGAL_LOGIT), values

    def heads(self, normalised: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        """Unmasked logits (n, n_actions) and values (n,) from features that are standardised already."""
        raise NotImplementedError


class MlpPolicy(PolicyNetwork):
    """Actor and critic trunks on the features, or one for both, named and initialised like Stable-Baselines3's."""

    def __init__(self, spec: NetworkSpec, generator: torch.Generator) -> None:
        super().__init__(spec)
        trunks = ("shared_net",) if spec.shared_trunk else ("policy_net", "value_net")
        self.mlp_extractor = nn.ModuleDict({name: _trunk(spec) for name in trunks})
        self.action_net = _linear(spec.hidden_sizes[-1], spec.n_actions)
        self.value_net = _linear(spec.hidden_sizes[-1], 1)
        for module, gain in (
            (self.mlp_extractor, math.sqrt(2)),
            (self.action_net, 0.01),
            (self.value_net, 1.0),
        ):
            for layer in (layer for layer in module.modules() if isinstance(layer, nn.Linear)):
                nn.init.orthogonal_(layer.weight, gain, generator)
                nn.init.zeros_(layer.bias)

    @property
    def feature_layers(self) -> list[nn.Linear]:
        return [_first(trunk) for trunk in self.mlp_extractor.values()]

    def heads(self, normalised: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.spec.shared_trunk:
            hidden = self.mlp_extractor["shared_net"](normalised)
            return self.action_net(hidden), self.value_net(hidden).squeeze(-1)
        logits = self.action_net(self.mlp_extractor["policy_net"](normalised))
        return logits, self.value_net(self.mlp_extractor["value_net"](normalised)).squeeze(-1)


class ConflictAwarePolicyNetwork(PolicyNetwork):
    """Map and features through one encoder each, then a shared layer; parameter names and sizes as upstream."""

    def __init__(self, spec: NetworkSpec, generator: torch.Generator) -> None:
        super().__init__(spec)
        (width,) = spec.hidden_sizes
        self.map_encoder = nn.Sequential(nn.Flatten(), _linear(math.prod(spec.map_shape), width), nn.ReLU())
        self.feature_encoder = nn.Sequential(_linear(spec.n_features, width), nn.ReLU())
        self.shared = nn.Sequential(_linear(2 * width, width), nn.ReLU())
        self.policy_head = _linear(width, spec.n_actions)
        self.value_head = _linear(width, 1)
        for layer in (layer for layer in self.modules() if isinstance(layer, nn.Linear)):
            bound = 1 / math.sqrt(layer.in_features)  # torch's own default for a linear layer
            nn.init.uniform_(layer.weight, -bound, bound, generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator)

    @property
    def feature_layers(self) -> list[nn.Linear]:
        return [_first(self.feature_encoder)]

    def heads(self, normalised: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        if maps is None:
            raise ValueError("a conflict_aware network reads maps, and none were given")
        encoded = self.map_encoder(maps.float()), self.feature_encoder(normalised)
        hidden = self.shared(torch.cat(encoded, dim=1))
        return self.policy_head(hidden), self.value_head(hidden).squeeze(-1)


def network_for_env(
    env: EnvSpec,
    kind: NetworkKind,
    hidden_sizes: tuple[int, ...] | None = None,
    activation: Activation | None = None,
    *,
    normalised: bool = False,
    shared_trunk: bool = False,
) -> NetworkSpec:
    """The network of that kind for an environment, of the usual width and activation unless told.

    Where features come `normalised`, it cuts them off at `FEATURE_CLIP`.

    Raises:
        ConfigError: the environment shows no map, which the network reads.
    """
    reads_maps = kind == "conflict_aware"
    if reads_maps and not env.map_channels:
        raise ConfigError(f"{env.env_id} shows no maps, which a conflict_aware network reads. Use mlp.")
    return NetworkSpec(
        kind=kind,
        n_features=len(env.feature_names),
        n_actions=len(env.action_low) or len(env.action_names),
        hidden_sizes=hidden_sizes or HIDDEN_SIZES[kind],
        activation=activation or ("relu" if reads_maps else "tanh"),
        map_shape=env.map_shape if reads_maps else (0, 0, 0),
        feature_clip=FEATURE_CLIP if normalised else UNCLIPPED,
        distribution="gaussian" if env.action_low else "categorical",
        shared_trunk=shared_trunk,
    )


def build_network(spec: NetworkSpec, rng: np.random.Generator) -> PolicyNetwork:
    """A fresh network of that kind, initialised from `rng` alone."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    kinds = {"mlp": MlpPolicy, "conflict_aware": ConflictAwarePolicyNetwork}
    return kinds[spec.kind](spec, generator)


def export_weights(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copies of a network's arrays by name, ready for a checkpoint."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}


def import_weights(network: nn.Module, weights: Arrays) -> None:
    """Copy arrays into a network's own memory, name for name.

    Raises:
        CheckpointError: a name or shape is not the network's.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: array.shape for name, array in weights.items()}
    for name in sorted(own | given):
        if own.get(name) != given.get(name):
            raise CheckpointError(
                f"The network's array {name!r} has shape {own.get(name)}, the checkpoint's has {given.get(name)}."
            )
    for name, tensor in network.state_dict().items():
        tensor.copy_(torch.from_numpy(weights[name]))


def with_own_critic(spec: NetworkSpec, weights: Arrays, fresh: Arrays) -> dict[str, NDArray[np.float32]]:
    """The arrays of an MLP with a shared trunk, whose critic is instead the one in `fresh`, with a trunk of its own.

    A trunk that imitation shaped is a poor one for values: a copy of it learns them worse than a fresh one.
    """
    own_trunk = replace(spec, shared_trunk=False).actor_trunk
    actor = {name: array for name, array in weights.items() if name not in spec.critic_shapes()}
    return {**fresh, **{name.replace(spec.actor_trunk, own_trunk): array for name, array in actor.items()}}


class FlatParameters:
    """Some of a network's parameters moved into one vector, so that an optimiser step is one operation.

    The network goes on using its parameters, which are views of `vector`; their gradients are views of `gradient`.
    """

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        parameters = dict(network.named_parameters())
        chosen = [parameters[name] for name in names]
        self._shapes = {name: parameter.shape for name, parameter in zip(names, chosen, strict=True)}
        self.vector = torch.zeros(
            sum(shape.numel() for shape in self._shapes.values()), device=chosen[0].device
        )
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        self.values, self.gradients = self.views(self.vector), self.views(self.gradient)
        for name, parameter in zip(names, chosen, strict=True):
            self.values[name].copy_(parameter.detach())
            parameter.data = self.values[name]
            parameter.grad = self.gradients[name]

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector in the order of this one as arrays by name; those named in `BY_INPUT` lie in it transposed."""
        pieces = torch.split(vector, [shape.numel() for shape in self._shapes.values()])
        return {
            name: piece.view(shape[::-1]).t() if name in BY_INPUT else piece.view(shape)
            for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }


def _trunk(spec: NetworkSpec) -> nn.Sequential:
    sizes = (spec.n_features, *spec.hidden_sizes)
    activation = ACTIVATIONS[spec.activation]
    layers = [(_linear(n_in, n_out), activation()) for n_in, n_out in itertools.pairwise(sizes)]
    return nn.Sequential(*(module for pair in layers for module in pair))


def _first(trunk: nn.Module) -> nn.Linear:
    """The layer of a trunk that comes first."""
    layer = next(trunk.children())
    assert isinstance(layer, nn.Linear)  # they are all built so
    return layer


def _linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer whose values are yet to be drawn; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):  # `skip_init` would bring sympy along
        return nn.Linear(n_in, n_out)
