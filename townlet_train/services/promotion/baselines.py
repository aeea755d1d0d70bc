"""What anneals on a dataset were compared with, kept beside the releases for the anneals to come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from townlet_train.errors import UsageError
from townlet_train.files import write_json
from townlet_train.services.promotion.folder import BASELINES, PromotionFolder

Baselines = Mapping[str, Mapping[str, float]]  # by dataset label, then under Townlet's names


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: str = "1.0.0"
    baselines: dict[str, dict[str, float]]


def load_baselines(directory: Path) -> dict[str, dict[str, float]]:
    """What is kept there, by dataset label; nothing where no anneal has ended.

    Raises:
        UsageError: the file is there and cannot be read.
    """
    path = directory / BASELINES
    try:
        return _File.model_validate_json(path.read_bytes()).baselines if path.exists() else {}
    except (OSError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise UsageError(
            f"{path} holds no baselines by dataset label ({why}). Remove it, and the next anneal begins a new one."
        ) from error


def save_baselines(directory: Path, label: str, baselines: Mapping[str, float]) -> None:
    """Keep a dataset's baselines in place of its older ones.

    Raises:
        StorageError: the directory cannot be written to.
    """
    with PromotionFolder(directory).locked():
        kept = {**load_baselines(directory), label: dict(baselines)}
        write_json(directory / BASELINES, _File(baselines=kept).model_dump())
