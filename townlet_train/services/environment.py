"""Which environment work is in where nobody says: that of the files it begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from townlet_train.config import DEFAULT, RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.errors import CheckpointError, TownletTrainError
from townlet_train.services.replay import ReplayDatasetService
from townlet_train.services.resume import changed_keys


def in_env_of(
    config: RunConfig, origin: Mapping[str, str], files: Iterable[Path]
) -> tuple[RunConfig, Mapping[str, str]]:
    """The config in the environment of the first file that tells one, where none was named, and where it is from.

    What cannot be read, or differs from what was named, is left to those who use the files.
    """
    if "env" in dict(changed_keys(config, origin, DEFAULT)):
        return config, origin
    for path in files:
        env = env_told_by(path)
        if env == config.env:
            break
        if env is not None:
            return config.model_copy(update={"env": env}), {**origin, "env": str(path)}
    return config, origin


def env_told_by(path: Path) -> str | None:
    """The environment that a checkpoint or a recording is of; None where it does not say, or is neither."""
    with suppress(CheckpointError):
        return load_checkpoint(path).info.env_id or None
    with suppress(TownletTrainError):
        return ReplayDatasetService().env_id(path)
    return None
