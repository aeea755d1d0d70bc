"""What strategies and commands share, none of it needing torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from townlet_train.envs.processes import Processes
from townlet_train.policies.experts import EXPERTS, Experts

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.services.gate.integrity import GateChecks
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
    experts: Experts = field(
        default_factory=lambda: EXPERTS
    )  # by environment id, those of plugins among them
    processes: Processes = field(default_factory=Processes)  # that step environments, kept from set to set
    gate_checks: GateChecks = field(default_factory=dict)  # what plugins object to in a candidate, by name

    @classmethod
    def from_config(
        cls, config: RunConfig, experts: Experts = EXPERTS, gate_checks: GateChecks | None = None
    ) -> TrainingServices:
        """The services for a run in which `experts` demonstrate and are compared with."""
        from townlet_train.config import config_hash
        from townlet_train.services.replay import ReplayDatasetService
        from townlet_train.services.rollout import RolloutCaptureService
        from townlet_train.services.scoring import EvaluationService

        processes = Processes()
        return cls(
            RolloutCaptureService(config_sha256=config_hash(config)),
            ReplayDatasetService(),
            EvaluationService(config, experts, processes),
            experts=experts,
            processes=processes,
            gate_checks=gate_checks or {},
        )

    def with_promotion(self, directory: Path | None) -> TrainingServices:
        """These, with the releases of a directory where one is named."""
        if directory is None:
            return self
        from townlet_train.services.promotion import PromotionService

        return replace(self, promotion=PromotionService(directory))
