"""Policies that need no training: the expert, random, idle, and the expert that never eats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.protocol import Actions, EnvSpec, Observation
from townlet_train.errors import UnknownNameError, UsageError
from townlet_train.policies.experts import EXPERT, EXPERTS, SCRIPTED_NAMES, Experts, build_expert
from townlet_train.policies.protocol import Policy
from townlet_train.sim.layout import ACTIONS, FEATURE_INDEX, FEATURES

HUNGER_FLAGS = tuple(FEATURE_INDEX[name] for name in ("low_hunger", "critical_hunger", "stock_low"))


class ExpertPolicy:
    """The town's scripted expert; `UsageError` for an environment with other features or actions."""

    name = "expert"

    def __init__(self, spec: EnvSpec) -> None:
        _check_town(self.name, spec)

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """The expert's action for every agent; `uniforms` are ignored."""
        return _expert(observation.features, observation.action_mask)


class FastingPolicy:
    """The expert with its hunger hidden from it: what never eating is worth."""

    name = "fasting"

    def __init__(self, spec: EnvSpec) -> None:
        _check_town(self.name, spec)

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """The expert's action for an agent that never feels hungry; `uniforms` are ignored."""
        features = observation.features.copy()
        features[..., HUNGER_FLAGS] = 0
        return _expert(features, observation.action_mask)


class RandomPolicy:
    """Every legal action with the same probability; of vectors, every one within the bounds."""

    name = "random"

    def __init__(self, spec: EnvSpec) -> None:
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        self._vectors = bool(spec.action_shape)
        if not np.isfinite(self._low).all() or not np.isfinite(self._high).all():
            raise UsageError(f"The actions of {spec.env_id} have no bounds to draw within. Use idle.")

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
        """The floor(u * n)-th of the n legal actions, or the vector u of the way from bound to bound."""
        if self._vectors:
            return np.asarray(self._low + uniforms * (self._high - self._low), np.float32)
        legal = np.cumsum(observation.action_mask, axis=-1)
        wanted = np.floor(uniforms * legal[..., -1])
        actions: NDArray[np.int64] = np.argmax(legal > wanted[..., None], axis=-1)
        return actions


class IdlePolicy:
    """Always action 0, which in the town is to wait, or the vector of zeros."""

    name = "idle"

    def __init__(self, spec: EnvSpec) -> None:
        self._dtype = np.float32 if spec.action_shape else np.int64

    def act(self, observation: Observation, uniforms: NDArray[np.float64]) -> Actions:
        """Zeros; `uniforms` are ignored."""
        return np.zeros(uniforms.shape, self._dtype)


SCRIPTED: dict[str, Callable[[EnvSpec], Policy]] = {
    "fasting": FastingPolicy,
    "idle": IdlePolicy,
    "random": RandomPolicy,
}


def scripted_policy(name: str, spec: EnvSpec, experts: Experts = EXPERTS) -> Policy:
    """The scripted policy of that name for an environment, "expert" being the environment's own among `experts`.

    Raises:
        UnknownNameError: no scripted policy has that name.
        UsageError: the environment has no expert, the policy plays the town alone, or cannot draw its actions.
    """
    if name == EXPERT:
        return build_expert(spec, experts)
    if name not in SCRIPTED:
        raise UnknownNameError("scripted policy", name, SCRIPTED_NAMES)
    return SCRIPTED[name](spec)


def _check_town(name: str, spec: EnvSpec) -> None:
    if (spec.feature_names, spec.action_names) != (FEATURES, ACTIONS):
        raise UsageError(
            f"Policy {name!r} plays the town, the environment is {spec.env_id!r}. Use random or idle."
        )


def _expert(features: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Expert actions over any leading axes."""
    from townlet_train.sim.expert import (
        expert_actions,
    )  # compiled rules, which no other environment need load

    actions = np.empty(mask.shape[:-1], np.int64)
    expert_actions(
        features.reshape(-1, features.shape[-1]), mask.reshape(-1, mask.shape[-1]), actions.reshape(-1)
    )
    return actions
