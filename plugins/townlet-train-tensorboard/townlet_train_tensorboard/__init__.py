"""TensorBoard scalars of every line a run records: a plugin of townlet-train that adds a logger and no strategy."""

from __future__ import annotations

from pathlib import Path

from townlet_train.api import RunLogger, hookimpl

TOWNLET_TRAIN_API = 1
__all__ = ["townlet_train_logger"]


@hookimpl
def townlet_train_logger(run_dir: Path, recorded: int | None) -> RunLogger:
    """A writer to logs/tensorboard; TensorBoard is imported when a run begins."""
    from townlet_train_tensorboard.scalars import ScalarLogger

    return ScalarLogger(run_dir, resumed=recorded is not None)
