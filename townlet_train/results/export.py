"""What an export left, and how far it acts as its checkpoint does."""

from __future__ import annotations

from pydantic import Field

from townlet_train.results.base import ResultDTO


class ExportDTO(ResultDTO):
    """A policy in a format of other programs, that was proven to act alike."""

    checkpoint: str
    checkpoint_sha256: str
    output: str
    output_sha256: str
    format: str = Field(description="onnx, safetensors, npz or torchscript")
    bytes: int
    inputs: tuple[str, ...] = Field(description="what it takes, each with type and shape")
    outputs: tuple[str, ...] = Field(description="what it gives")
    checked_rows: int = Field(description="random observations that both were shown")
    largest_difference: float = Field(description="of their outputs, as a share of 1 + the checkpoint's")
    allowed_difference: float
    same_actions: int = Field(description="rows with the same most probable action; of vectors, rows alike")
