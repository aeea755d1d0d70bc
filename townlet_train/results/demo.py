"""What the demo did."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO
from townlet_train.results.evaluation import PolicyScoreDTO


class DemoStepDTO(BaseModel):
    """One step of the demo as the command a user would type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    command: str


class DemoDTO(ResultDTO):
    """From nothing to a cloned villager and past it: what they reached on episodes nobody trained on."""

    run_dir: str
    checkpoint: str
    checkpoint_sha256: str
    frames: int = Field(description="demonstrated agent-ticks")
    val_accuracy: float | None
    val_accuracy_unforced: float
    majority_share: float
    first_seed: int = Field(description="of the held-out episodes, one seed each")
    episodes: int
    policies: tuple[PolicyScoreDTO, ...]
    steps: tuple[DemoStepDTO, ...]
