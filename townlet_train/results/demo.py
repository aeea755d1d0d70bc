"""What the demo did."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO
from townlet_train.results.gate import Verdict


class DemoStepDTO(BaseModel):
    """One step of the demo, what came of it, and the command a user would type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    outcome: str = Field(description="what came of it, in words")
    seconds: float
    command: str


class DemoPolicyDTO(BaseModel):
    """What one policy of the story earns, and at what price, in towns that nobody trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    released: str | None = Field(None, description="first or current, for those that were released")
    mean_return: float
    ci_low: float
    ci_high: float
    score: float | None = Field(
        description="0 is the random policy, 1 the expert; null if they earn the same"
    )
    faints_per_10k: float | None = Field(None, description="per 10 000 agent-ticks")
    conflicts_per_10k: float | None = Field(None, description="queue conflicts per 10 000 agent-ticks")


class DemoDTO(ResultDTO):
    """From nothing to a release that is better than the expert, step by step."""

    verdict: Verdict = Field(description="of the last gate; the story ends at the first that is not PASS")
    promoted: bool = Field(description="whether the annealed policy is the release")
    reasons: tuple[str, ...] = Field((), description="why it is not, in sentences")
    release_file: str | None = Field(None, description="the current release; null: none")
    release_sha256: str | None = None
    first_seed: int = Field(description="of the held-out episodes, one seed each")
    episodes: int
    steps: tuple[DemoStepDTO, ...]
    policies: tuple[DemoPolicyDTO, ...] = Field(description="everybody's returns on the held-out episodes")
