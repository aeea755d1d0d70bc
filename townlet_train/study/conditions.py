"""What is compared: conditions that differ in a term, on equal clones, equal seeds and equal steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from townlet_train.strategies.anneal.params import AnnealParams
from townlet_train.strategies.anneal.schedule import what_suits

SCRATCH, BC, DEFAULT = "scratch", "bc", "default"
SEPARATE, SHARED = "separate", "shared"
TRUNKS = (SEPARATE, SHARED)

LOOK: dict[str, Any] = {"guardrails": {"act": False}}
NO_WARMUP: dict[str, Any] = {"critic_warmup": 0.0}
NO_KL: dict[str, Any] = {"kl_coef": 0.0, "kl_floor": 0.0}
AS_PAID: dict[str, Any] = {"ppo": {"normalize_rewards": False}}
SCALED: dict[str, Any] = {"ppo": {"normalize_rewards": True}}
ONE_PROCESS: dict[str, Any] = {"ppo": {"n_workers": 1}}  # cells share the cores
SOME_KL: dict[str, Any] = {"kl_coef": 0.05, "kl_half_life": 0.25}  # where the default is none

TERMS: dict[str, tuple[dict[str, Any], ...]] = {
    "naive": (LOOK, AS_PAID, NO_WARMUP, NO_KL),
    "normalised": (LOOK, SCALED, NO_WARMUP, NO_KL),
    "warmup": (LOOK, SCALED, NO_KL),
    "kl": (LOOK, SCALED, NO_WARMUP),
    "all": (LOOK, SCALED),
    DEFAULT: (),
}
WITH_KL = ("kl", "all")
CONDITIONS = (*TERMS, SCRATCH, BC)


def anneal_params(
    condition: str, said: Mapping[str, Any], trunk: str, *, env: str, timesteps: int
) -> dict[str, Any]:
    """Params of the anneal of a condition, over what was said of anneal; a warm-up's steps are among `timesteps`."""
    usual = what_suits(env, AnnealParams(**said))
    kl = SOME_KL if condition in WITH_KL and not usual.kl_coef else {}
    as_cloned = {} if condition == DEFAULT else {"ppo": {"shared_trunk": trunk == SHARED}}
    of_stages = {name: value for name, value in said.items() if name != "bc"}  # the clone is made already
    params = merged(ONE_PROCESS, of_stages, *TERMS[condition], kl, as_cloned)
    warmup = AnnealParams(**params).critic_warmup
    return {**params, "gate": False, "timesteps": max(1, int(timesteps / (1 + warmup)))}


def scratch_params(said: Mapping[str, Any], trunk: str, *, env: str, timesteps: int) -> dict[str, Any]:
    """Params of PPO without a clone: the anneal's, features by their own running scale, and a rate that falls."""
    ppo = what_suits(env, AnnealParams(**merged(ONE_PROCESS, said))).ppo
    return {
        "normalize_observations": True,
        "learning_rate_schedule": "linear",
        **ppo,
        "shared_trunk": trunk == SHARED,
        "timesteps": timesteps,
        "evaluation_episodes": 0,
        "telemetry_frequency": 0,
    }


def clone_params(said: Mapping[str, Any], trunk: str, *, env: str) -> dict[str, Any]:
    """Params of the clone that conditions share."""
    bc = what_suits(env, AnnealParams(**said)).bc
    return {"evaluate": False, **bc, "shared_trunk": trunk == SHARED}


def merged(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """Documents laid over each other, tables key by key; later ones win.

    >>> merged({"ppo": {"gamma": 0.9}}, {"ppo": {"n_steps": 8}})
    {'ppo': {'gamma': 0.9, 'n_steps': 8}}
    """
    result: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            old = result.get(key)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                result[key] = merged(old, value)
            else:
                result[key] = value
    return result
