"""What a machine offers, and what is installed on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExtraDTO(_Row):
    """An optional part, and how to get it."""

    extra: str
    present: bool
    missing: tuple[str, ...] = Field(description="distributions that it needs and that are not installed")
    command: str | None = Field(None, description="what installs it; null where nothing is missing")


class PluginHealthDTO(_Row):
    """A plugin, and what became of it."""

    plugin: str
    distribution: str
    version: str
    status: str = Field(description="ok, disabled, failed or incompatible")
    reason: str = ""


class TorchDTO(_Row):
    """Torch, as a process of its own found it."""

    version: str
    cuda: str | None = Field(
        None, description="CUDA or ROCm version it was built for; null: for the CPU alone"
    )
    threads: int = Field(description="threads of one operation")
    devices: tuple[str, ...] = Field(description="accelerators it can use")


class MachineDoctorDTO(ResultDTO):
    """Whether the program finds on this machine what it needs."""

    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"extras": ("extra", "present", "missing", "command")}

    healthy: bool = Field(description="no warning")
    townlet_train: str = Field(description="its version")
    python: str
    executable: str
    platform: str
    cpu: str | None = Field(description="its name; null where the system does not tell")
    cpu_features: tuple[str, ...] = Field(description="instruction sets that matter to arrays")
    cpus: int = Field(description="processors this process may use")
    memory: int | None = Field(description="bytes; null where the system does not tell")
    gpus: tuple[str, ...] = Field(description="as the driver's own tool lists them")
    torch: TorchDTO | None = Field(None, description="null where it is not installed or does not start")
    disk_folder: str = Field(description="where runs are left, or the closest folder above that is there")
    disk_free: int = Field(description="bytes there")
    disk_writable: bool
    extras: tuple[ExtraDTO, ...]
    plugins: tuple[PluginHealthDTO, ...]
