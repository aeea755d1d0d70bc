"""Going on from a checkpoint: which one, with which settings, and whether that is still the same run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from townlet_train.config import RunConfig, flatten, nest
from townlet_train.data.checkpoint import Checkpoint, load_checkpoint, sorted_checkpoints
from townlet_train.errors import CheckpointError, UsageError

LATEST = "latest"
MAY_CHANGE = ("seed", "evaluation.")  # settings of the config; a strategy names those of its params
logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """A checkpoint that can be read, and what was found on the way to it."""

    path: Path
    checkpoint: Checkpoint
    warnings: tuple[str, ...]


def find_checkpoint(wanted: str, run_dir: Path) -> Found:
    """The checkpoint of that path, or the newest intact one in `run_dir` for "latest"; warnings name those passed over.

    Raises:
        CheckpointError: there is none, or the one that was named cannot be read.
    """
    if wanted != LATEST:
        return Found(Path(wanted), load_checkpoint(Path(wanted)), ())
    passed: list[str] = []
    for path in reversed(sorted_checkpoints(run_dir)):
        try:
            return Found(path, load_checkpoint(path), tuple(passed))
        except CheckpointError as error:
            passed.append(f"{error} An older one was taken.")
    damaged = f" that can be read: {passed[0]}" if passed else ". Name the run's directory with --output-dir."
    raise CheckpointError(f"{run_dir} holds no checkpoint to resume from{damaged}")


def check_resumable(found: Found, algorithm: str) -> None:
    """Raise `CheckpointError` unless that algorithm trained the checkpoint and it holds the state of its training."""
    path, checkpoint, _ = found
    if checkpoint.info.algorithm != algorithm:
        raise CheckpointError(
            f"{path} was trained by {checkpoint.info.algorithm!r}, not by {algorithm!r}. "
            f"Resume it with `townlet-train {checkpoint.info.algorithm}`, or begin a new run with its policy by --fork."
        )
    if checkpoint.training is None or not {"config", "params"} <= set(checkpoint.state):
        raise CheckpointError(
            f"{path} holds a policy and no state of its training. Resume from a checkpoint_<step>.zip, or begin a "
            f"new run with its policy by --fork."
        )


def continued_config(found: Found, given: Mapping[str, Any]) -> tuple[RunConfig, tuple[str, ...]]:
    """The checkpoint's config with what was given now, by dotted key; and a warning when that is another seed.

    Raises:
        CheckpointError: another environment was given.
        UsageError: something was given that would make it another run.
    """
    path, saved = found.path, dict(flatten(found.checkpoint.state["config"]))
    if given.get("env", saved["env"]) != saved["env"]:
        raise CheckpointError(f"{path} was trained in environment {saved['env']!r}, not in {given['env']!r}.")
    for key, value in given.items():
        if not key.startswith(MAY_CHANGE) and value != saved.get(key):
            raise _another_run(path, key, saved.get(key), value, ["evaluation"])
    config = RunConfig.model_validate(nest({**saved, **given, "seed": saved["seed"]}))
    seed = given.get("seed", saved["seed"])
    if seed == saved["seed"]:
        return config, ()
    return config, (
        f"{path} was trained with seed {saved['seed']}, which goes on; seed {seed} has no effect.",
    )


def check_same_params(found: Found, params: Mapping[str, Any], may_change: frozenset[str]) -> None:
    """Raise `UsageError` when params differ from the checkpoint's in more than what may change."""
    saved = found.checkpoint.state["params"]
    for key, value in params.items():
        if key not in may_change and key in saved and value != saved[key]:
            raise _another_run(found.path, key, saved[key], value, sorted(may_change))


def changed_keys(config: RunConfig, origin: Mapping[str, str], default: str) -> Iterator[tuple[str, Any]]:
    """What was said of a config, by dotted key; `origin` tells where values came from, where that is known."""
    if origin:
        leaves = flatten(config.model_dump(mode="json"))
        return ((key, value) for key, value in leaves if origin.get(key, default) != default)
    return flatten(config.model_dump(mode="json", exclude_unset=True))


def _another_run(path: Path, key: str, saved: object, given: object, may_change: list[str]) -> UsageError:
    return UsageError(
        f"{key} is {saved!r} in {path} and {given!r} now, which makes it another run; only {', '.join(may_change)} "
        f"may change. Leave it out, or begin a new run with its policy by --fork."
    )
