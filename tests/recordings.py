"""Small recordings for the tests: captures of the counting environment, and Townlet samples made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.fakes import CountingEnv, LastLegalPolicy
from townlet_train.config import RunConfig
from townlet_train.results import RolloutCaptureDTO
from townlet_train.services.rollout import RolloutCaptureService, capture_as_configured

FEATURE_NAMES = ["need_hunger", "rivalry_max", "rivalry_avoid_count"]


def capture(
    output: Path, *, ticks: int = 12, seeds: Sequence[int] = (5, 6), **options: Any
) -> RolloutCaptureDTO:
    """12 ticks of 2 environments with 2 agents: 2 episodes each, in which agent 1 dies once; 48 frames, 12 lives."""
    env = CountingEnv(n_envs=len(seeds))
    return RolloutCaptureService().capture(
        env, LastLegalPolicy(), ticks=ticks, seeds=seeds, output=output, **options
    )


def capture_long(output: Path, ticks: int) -> Path:
    """The manifest of a store with long episodes, so that its frames outweigh it."""
    env = CountingEnv(episode_ticks=250)
    captured = RolloutCaptureService().capture(
        env, LastLegalPolicy(), ticks=ticks, seeds=(5, 6), output=output, store="memmap"
    )
    return Path(captured.manifest)


def townlet_sample(
    path: Path, n_steps: int = 4, *, arrays: dict[str, Any] | None = None, meta: dict[str, Any] | None = None
) -> Path:
    """A sample as Townlet writes it; `arrays` and `meta` replace parts of it, None removes one."""
    content: dict[str, Any] = {
        "map": np.zeros((n_steps, 2, 3, 3), np.float32),
        "features": np.arange(n_steps * 3, dtype=np.float32).reshape(n_steps, 3) / 10,
        "actions": np.arange(n_steps) % 2,
        "old_log_probs": np.full(n_steps, -0.5, np.float32),
        "rewards": np.full(n_steps, 0.25, np.float32),
        "dones": np.arange(n_steps) == n_steps - 1,
        "value_preds": np.arange(n_steps + 1, dtype=np.float32),
    }
    document: dict[str, Any] = {
        "feature_names": FEATURE_NAMES,
        "map_channels": ["self", "agents"],
        "action_lookup": {'{"kind": "wait"}': 0, '{"kind": "move", "to": [1, 2]}': 1},
        "agent_id": path.stem,
    }
    content |= arrays or {}
    document |= meta or {}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    kept = {name: value for name, value in document.items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(kept))
    return path


def write_manifest(path: Path, document: Any) -> Path:
    """A manifest with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def capture_vectors(
    output: Path,
    *,
    ticks: int = 250,
    towns: int = 2,
    seed: int = 5,
    store: str = "npz",
    policy: str = "random",
) -> RolloutCaptureDTO:
    """Pendulums, whose actions are vectors of one number in [-2, 2] and whose episodes take 200 ticks."""
    rollout = {"ticks": ticks, "towns": towns, "store": store}
    config = RunConfig.model_validate({"env": "Pendulum-v1", "seed": seed, "rollout": rollout})
    return capture_as_configured(config, output=output, policy=policy)
