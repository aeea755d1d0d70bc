"""What a command found out, as frozen pydantic models: Rich shows them as tables, `--json` prints them whole."""

from townlet_train.results.anneal import AnnealStageResultDTO, AnnealStatus, AnnealSummaryDTO
from townlet_train.results.base import ResultDTO, TrainingResultDTO
from townlet_train.results.demo import DemoDTO, DemoPolicyDTO, DemoStepDTO
from townlet_train.results.evaluation import Comparison, EvaluationDTO, PolicyScoreDTO
from townlet_train.results.export import ExportDTO
from townlet_train.results.gate import (
    CompareDTO,
    GateCandidateDTO,
    GateCriterionDTO,
    GateDTO,
    MethodDTO,
    MethodPairDTO,
    Verdict,
)
from townlet_train.results.machine import ExtraDTO, MachineDoctorDTO, PluginHealthDTO, TorchDTO
from townlet_train.results.minari import MinariDTO
from townlet_train.results.promotion import (
    CandidateDTO,
    PromotionEventDTO,
    PromotionHistoryDTO,
    PromotionProblem,
    PromotionSnapshot,
    PromotionStatusDTO,
    PromotionVerifyDTO,
)
from townlet_train.results.replay import (
    ReplayEpisodeDTO,
    ReplayInspectDTO,
    ReplayProblem,
    ReplayRewriteDTO,
    ReplaySplitDTO,
    ReplayStatsDTO,
    ReplayValidateDTO,
    RolloutCaptureDTO,
)
from townlet_train.results.runs import (
    CardDTO,
    RunDiffDTO,
    RunDifferenceDTO,
    RunFileDTO,
    RunLeftoverDTO,
    RunRowDTO,
    RunsGcDTO,
    RunShowDTO,
    RunsListDTO,
    RunTailDTO,
)
from townlet_train.results.schemas import SchemaRowDTO, SchemasDTO
from townlet_train.results.study import (
    StudyBudgetDTO,
    StudyCellDTO,
    StudyDTO,
    StudyPointDTO,
    StudyRowDTO,
)
from townlet_train.results.town import (
    DoctorCheckDTO,
    KernelCacheDTO,
    Measurement,
    TownBudgetDTO,
    TownDoctorDTO,
)
from townlet_train.results.training import BCTrainingResultDTO, OnPolicyResultDTO, PPOTrainingResultDTO

__all__ = [
    "AnnealStageResultDTO",
    "AnnealStatus",
    "AnnealSummaryDTO",
    "BCTrainingResultDTO",
    "CandidateDTO",
    "CardDTO",
    "CompareDTO",
    "Comparison",
    "DemoDTO",
    "DemoPolicyDTO",
    "DemoStepDTO",
    "DoctorCheckDTO",
    "EvaluationDTO",
    "ExportDTO",
    "ExtraDTO",
    "GateCandidateDTO",
    "GateCriterionDTO",
    "GateDTO",
    "KernelCacheDTO",
    "MachineDoctorDTO",
    "Measurement",
    "MethodDTO",
    "MethodPairDTO",
    "MinariDTO",
    "OnPolicyResultDTO",
    "PPOTrainingResultDTO",
    "PluginHealthDTO",
    "PolicyScoreDTO",
    "PromotionEventDTO",
    "PromotionHistoryDTO",
    "PromotionProblem",
    "PromotionSnapshot",
    "PromotionStatusDTO",
    "PromotionVerifyDTO",
    "ReplayEpisodeDTO",
    "ReplayInspectDTO",
    "ReplayProblem",
    "ReplayRewriteDTO",
    "ReplaySplitDTO",
    "ReplayStatsDTO",
    "ReplayValidateDTO",
    "ResultDTO",
    "RolloutCaptureDTO",
    "RunDiffDTO",
    "RunDifferenceDTO",
    "RunFileDTO",
    "RunLeftoverDTO",
    "RunRowDTO",
    "RunShowDTO",
    "RunTailDTO",
    "RunsGcDTO",
    "RunsListDTO",
    "SchemaRowDTO",
    "SchemasDTO",
    "StudyBudgetDTO",
    "StudyCellDTO",
    "StudyDTO",
    "StudyPointDTO",
    "StudyRowDTO",
    "TorchDTO",
    "TownBudgetDTO",
    "TownDoctorDTO",
    "TrainingResultDTO",
    "Verdict",
]
