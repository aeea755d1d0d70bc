"""A policy's network as TorchScript, for programs that load it with libtorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from townlet_train.data.checkpoint import Checkpoint
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, ILLEGAL_LOGIT, NetworkSpec


class _Policy(nn.Module):
    """Normaliser, network and mask; what is random stays with the caller."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.spec = NetworkSpec.from_document(checkpoint.info.network)
        self.names = {name: name.replace(".", "_") for name in checkpoint.weights}
        for name, array in checkpoint.weights.items():
            self.register_buffer(self.names[name], torch.from_numpy(np.array(array, np.float32)))

    def forward(self, features: Tensor, *others: Tensor) -> Tensor:
        """Masked logits, or the means of vectors: (n, n_actions)."""
        clip = self.spec.feature_clip
        hidden = ((features - self._weight(FEATURE_MEAN)) / self._weight(FEATURE_STD)).clamp(-clip, clip)
        if self.spec.kind == "conflict_aware":
            maps = self._dense("map_encoder.1", others[0].flatten(1))
            encoded = torch.cat([maps, self._dense("feature_encoder.0", hidden)], 1)
            outputs = self._affine("policy_head", self._dense("shared.0", encoded))
        else:
            for layer in self.spec.hidden_layers(self.spec.actor_trunk):
                hidden = self._dense(layer, hidden)
            outputs = self._affine("action_net", hidden)
        if self.spec.distribution == "gaussian":
            return outputs
        return outputs.masked_fill(~others[-1], ILLEGAL_LOGIT)

    def _dense(self, layer: str, inputs: Tensor) -> Tensor:
        outputs = self._affine(layer, inputs)
        return outputs.tanh() if self.spec.activation == "tanh" else outputs.relu()

    def _affine(self, layer: str, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self._weight(f"{layer}.weight"), self._weight(f"{layer}.bias"))

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = getattr(self, self.names[name])
        return weight


def write_torchscript(path: Path, checkpoint: Checkpoint, inputs: dict[str, Any]) -> None:
    """Trace the policy on `inputs`, arrays by name in the order it takes them, and save it."""
    examples = tuple(torch.from_numpy(array) for array in inputs.values())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is told to be of the past; who asks for it has a reason
        torch.jit.save(torch.jit.trace(_Policy(checkpoint).eval(), examples), str(path))  # type: ignore[no-untyped-call]  # torch has none


def run_torchscript(path: Path, inputs: dict[str, Any]) -> Any:
    """What a saved policy puts out for arrays by name, as an array."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # as above
        policy = torch.jit.load(str(path))  # type: ignore[no-untyped-call]  # as above
        return policy(*(torch.from_numpy(array) for array in inputs.values())).numpy()
