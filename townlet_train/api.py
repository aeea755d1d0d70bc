"""The plugin author's door: everything a strategy needs, and nothing that moves between releases.

Names that need NumPy are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from townlet_train.contract import (
    AnnealContext,
    GateCheck,
    Progress,
    RunLogger,
    StartingPoint,
    StrategyParams,
    TrainingContext,
    TrainingStrategy,
)
from townlet_train.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    TorchNotAvailableError,
    TownletTrainError,
    TrainingError,
    UsageError,
)
from townlet_train.files import sha256_of
from townlet_train.hookspecs import API_VERSION, hookimpl
from townlet_train.policies.experts import EXPERTS, Experts, build_expert
from townlet_train.results import (
    AnnealStageResultDTO,
    AnnealStatus,
    AnnealSummaryDTO,
    BCTrainingResultDTO,
    Comparison,
    EvaluationDTO,
    GateDTO,
    OnPolicyResultDTO,
    PolicyScoreDTO,
    PPOTrainingResultDTO,
    PromotionStatusDTO,
    ResultDTO,
    RolloutCaptureDTO,
    TrainingResultDTO,
)

if TYPE_CHECKING:
    from townlet_train.config import Guardrail, RunConfig
    from townlet_train.data.checkpoint import (
        Checkpoint,
        CheckpointInfo,
        Lineage,
        load_checkpoint,
        save_checkpoint,
        seed_ranges,
    )
    from townlet_train.data.dataset import Demonstrations
    from townlet_train.envs.build import build_env, spec_of
    from townlet_train.envs.protocol import EnvSpec, Observation, VectorEnv, episodes_over
    from townlet_train.envs.streams import stream
    from townlet_train.policies.network import NetworkPolicy, NetworkSpec
    from townlet_train.policies.protocol import Policy
    from townlet_train.services.gate import check_block_unseen, gate_checkpoints
    from townlet_train.services.promotion import (
        PromotionService,
        gate_evidence,
        load_baselines,
        save_baselines,
    )
    from townlet_train.services.rolling import EventLog
    from townlet_train.services.rollout import capture_as_configured

_LATER = {
    "Checkpoint": "townlet_train.data.checkpoint",
    "CheckpointInfo": "townlet_train.data.checkpoint",
    "Lineage": "townlet_train.data.checkpoint",
    "seed_ranges": "townlet_train.data.checkpoint",
    "load_checkpoint": "townlet_train.data.checkpoint",
    "save_checkpoint": "townlet_train.data.checkpoint",
    "spec_of": "townlet_train.envs.build",
    "stream": "townlet_train.envs.streams",
    "EventLog": "townlet_train.services.rolling",
    "Guardrail": "townlet_train.config",
    "RunConfig": "townlet_train.config",
    "PromotionService": "townlet_train.services.promotion",
    "check_block_unseen": "townlet_train.services.gate",
    "gate_checkpoints": "townlet_train.services.gate",
    "gate_evidence": "townlet_train.services.promotion",
    "load_baselines": "townlet_train.services.promotion",
    "save_baselines": "townlet_train.services.promotion",
    "Demonstrations": "townlet_train.data.dataset",
    "EnvSpec": "townlet_train.envs.protocol",
    "Observation": "townlet_train.envs.protocol",
    "VectorEnv": "townlet_train.envs.protocol",
    "episodes_over": "townlet_train.envs.protocol",
    "NetworkPolicy": "townlet_train.policies.network",
    "NetworkSpec": "townlet_train.policies.network",
    "Policy": "townlet_train.policies.protocol",
    "build_env": "townlet_train.envs.build",
    "capture_as_configured": "townlet_train.services.rollout",
}

__all__ = [
    "API_VERSION",
    "EXPERTS",
    "AnnealContext",
    "AnnealStageResultDTO",
    "AnnealStatus",
    "AnnealSummaryDTO",
    "BCTrainingResultDTO",
    "Checkpoint",
    "CheckpointError",
    "CheckpointInfo",
    "Comparison",
    "ConfigError",
    "DataError",
    "Demonstrations",
    "EnvSpec",
    "EvaluationDTO",
    "EventLog",
    "Experts",
    "GateCheck",
    "GateDTO",
    "Guardrail",
    "Interrupted",
    "Lineage",
    "NetworkPolicy",
    "NetworkSpec",
    "Observation",
    "OnPolicyResultDTO",
    "PPOTrainingResultDTO",
    "Policy",
    "PolicyScoreDTO",
    "Progress",
    "PromotionService",
    "PromotionStatusDTO",
    "ResultDTO",
    "RolloutCaptureDTO",
    "RunConfig",
    "RunLogger",
    "StartingPoint",
    "StrategyParams",
    "TorchNotAvailableError",
    "TownletTrainError",
    "TrainingContext",
    "TrainingError",
    "TrainingResultDTO",
    "TrainingStrategy",
    "UsageError",
    "VectorEnv",
    "build_env",
    "build_expert",
    "capture_as_configured",
    "check_block_unseen",
    "episodes_over",
    "gate_checkpoints",
    "gate_evidence",
    "hookimpl",
    "load_baselines",
    "load_checkpoint",
    "save_baselines",
    "save_checkpoint",
    "seed_ranges",
    "sha256_of",
    "spec_of",
    "stream",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
