"""Standardised features within a policy of Stable-Baselines3.

A file that needs it carries this class in it, so that it opens where townlet-train is not installed: nothing of
townlet-train is used here.
"""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor


class StandardisedFeatures(BaseFeaturesExtractor):
    """Features less a frozen mean, over a frozen deviation, cut to +-clip."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, observation_space: spaces.Box, clip: float) -> None:
        super().__init__(observation_space, get_flattened_obs_dim(observation_space))
        self.clip = clip
        self.register_buffer("mean", torch.zeros(self.features_dim))
        self.register_buffer("std", torch.ones(self.features_dim))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(n, n_features), as observations are."""
        return ((observations - self.mean) / self.std).clamp(-self.clip, self.clip)
