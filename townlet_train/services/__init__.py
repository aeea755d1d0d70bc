"""What strategies and commands share, none of it needing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.services.promotion import PromotionServiceAdapter
    from townlet_train.services.replay import ReplayDatasetService
    from townlet_train.services.rollout import RolloutCaptureService
    from townlet_train.services.scoring import EvaluationService


@dataclass(frozen=True)
class TrainingServices:
    """The services a strategy is handed; a test hands it fakes."""

    rollout: RolloutCaptureService
    replay: ReplayDatasetService
    evaluation: EvaluationService
    promotion: PromotionServiceAdapter | None = None  # None: nothing here promotes checkpoints

    @classmethod
    def from_config(cls, config: RunConfig) -> TrainingServices:
        """The services for a run."""
        from townlet_train.config import config_hash
        from townlet_train.services.replay import ReplayDatasetService
        from townlet_train.services.rollout import RolloutCaptureService
        from townlet_train.services.scoring import EvaluationService

        return cls(
            RolloutCaptureService(config_sha256=config_hash(config)),
            ReplayDatasetService(),
            EvaluationService(config),
        )
