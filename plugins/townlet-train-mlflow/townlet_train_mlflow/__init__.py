"""Every run in MLflow: a plugin of townlet-train that adds a logger and no strategy."""

from __future__ import annotations

import os
from pathlib import Path

from townlet_train.api import RunLogger, UsageError, hookimpl

TOWNLET_TRAIN_API = 1
__all__ = ["townlet_train_logger"]

SERVER = "MLFLOW_TRACKING_URI"


@hookimpl
def townlet_train_logger(run_dir: Path) -> RunLogger | None:
    """Who sends a run to the MLflow that MLFLOW_TRACKING_URI names; without it nobody, and MLflow is not imported.

    Raises:
        UsageError: MLflow is not installed.
    """
    if not os.environ.get(SERVER):
        return None
    try:
        from townlet_train_mlflow.tracking import MlflowLogger
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mlflow":
            raise
        raise UsageError(
            f"MLflow is not installed, and {SERVER} asks for it. Run: pip install mlflow-skinny"
        ) from error
    return MlflowLogger(run_dir)
