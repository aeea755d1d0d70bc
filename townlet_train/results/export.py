"""What an export left, and how far it acts as its checkpoint does."""

from __future__ import annotations

from pydantic import Field

from townlet_train.results.base import ResultDTO


class ExportDTO(ResultDTO):
    """A policy in a format of other programs, and how far it was proven to act alike."""

    checkpoint: str
    checkpoint_sha256: str
    output: str
    output_sha256: str
    format: str = Field(description="onnx, safetensors, npz, torchscript, or one of a plugin")
    bytes: int
    inputs: tuple[str, ...] = Field((), description="what it takes, each with type and shape")
    outputs: tuple[str, ...] = Field((), description="what it gives")
    checked_rows: int = Field(0, description="random observations that both were shown; 0: not compared")
    largest_difference: float | None = Field(
        None, description="of their outputs, as a share of 1 + the checkpoint's"
    )
    allowed_difference: float | None = None
    same_actions: int | None = Field(
        None, description="rows with the same most probable action; of vectors, rows alike"
    )
