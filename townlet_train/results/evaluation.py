"""What policies earn, and how they compare."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO

FEWEST_TO_BOUND = 20  # episodes; the bootstrap of fewer knows no tail


class EvaluationDTO(ResultDTO):
    """Episode returns of one policy on fixed seeds."""

    policy: str = Field(description="checkpoint path or scripted policy name")
    env: str = Field(description="environment id")
    deterministic: bool = Field(description="True: the most probable action; False: sampled")
    seeds: tuple[int, ...] = Field(description="one seed per episode")
    episode_returns: tuple[float, ...] = Field(
        description="return of each episode; in the town the mean over agent slots"
    )
    episode_lengths: tuple[int, ...] = Field((), description="ticks of each episode")
    mean: float
    iqm: float = Field(description="mean of the middle half (25 % trimmed mean)")
    ci_low: float = Field(description="lower end of the 95 % bootstrap interval of the mean")
    ci_high: float = Field(description="upper end of the 95 % bootstrap interval of the mean")
    events: dict[str, float] = Field(
        default_factory=dict, description="events per 1 000 agent-ticks, by name"
    )
    event_bounds: dict[str, tuple[float, float]] = Field(
        default_factory=dict,
        description="what the true rate of each event is above and below, each 95 % sure; none of one episode",
    )

    def reaches(self, threshold: float | None) -> bool | None:
        """Whether the lower bound of the mean does; None without a threshold, and for too few episodes to bound it."""
        if threshold is None or len(self.episode_returns) < FEWEST_TO_BOUND:
            return None
        return self.ci_low >= threshold


class PolicyScoreDTO(BaseModel):
    """One policy's mean return on the held-out seeds, beside the expert's and the random policy's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    mean_return: float
    ci_low: float
    ci_high: float
    score: float | None = Field(
        description="(mean - random) / (expert - random): random is 0, the expert is 1; null if they earn the same"
    )
    faints_per_10k: float | None = Field(None, description="per 10 000 agent-ticks; null where nobody faints")


class Comparison(NamedTuple):
    """A checkpoint beside the expert and a random policy; empty where no expert plays."""

    policies: tuple[PolicyScoreDTO, ...] = ()  # expert, the checkpoint sampled and greedy, random
    returns: tuple[float, ...] = ()  # the checkpoint's, sampled, episode by episode
    warnings: tuple[str, ...] = ()

    def score(self, policy: str) -> float | None:
        """The score of a policy by name; None when there is none."""
        return next((row.score for row in self.policies if row.policy == policy), None)
