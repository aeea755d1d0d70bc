"""The plugin author's door: everything a strategy needs, and nothing that moves between releases.

Names that need NumPy are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from townlet_train.contract import (
    AnnealContext,
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
    AnnealSummaryDTO,
    BCTrainingResultDTO,
    Comparison,
    EvaluationDTO,
    OnPolicyResultDTO,
    PolicyScoreDTO,
    PPOTrainingResultDTO,
    RolloutCaptureDTO,
    TrainingResultDTO,
)

if TYPE_CHECKING:
    from townlet_train.data.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from townlet_train.data.dataset import Demonstrations
    from townlet_train.envs.build import build_env
    from townlet_train.envs.protocol import EnvSpec, Observation
    from townlet_train.envs.streams import stream
    from townlet_train.policies.protocol import Policy
    from townlet_train.services.rolling import EventLog
    from townlet_train.services.rollout import capture_as_configured

_LATER = {
    "Checkpoint": "townlet_train.data.checkpoint",
    "load_checkpoint": "townlet_train.data.checkpoint",
    "save_checkpoint": "townlet_train.data.checkpoint",
    "stream": "townlet_train.envs.streams",
    "EventLog": "townlet_train.services.rolling",
    "Demonstrations": "townlet_train.data.dataset",
    "EnvSpec": "townlet_train.envs.protocol",
    "Observation": "townlet_train.envs.protocol",
    "Policy": "townlet_train.policies.protocol",
    "build_env": "townlet_train.envs.build",
    "capture_as_configured": "townlet_train.services.rollout",
}

__all__ = [
    "API_VERSION",
    "EXPERTS",
    "AnnealContext",
    "AnnealStageResultDTO",
    "AnnealSummaryDTO",
    "BCTrainingResultDTO",
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "ConfigError",
    "DataError",
    "Demonstrations",
    "EnvSpec",
    "EvaluationDTO",
    "EventLog",
    "Experts",
    "Interrupted",
    "Observation",
    "OnPolicyResultDTO",
    "PPOTrainingResultDTO",
    "Policy",
    "PolicyScoreDTO",
    "Progress",
    "RolloutCaptureDTO",
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
    "build_env",
    "build_expert",
    "capture_as_configured",
    "hookimpl",
    "load_checkpoint",
    "save_checkpoint",
    "sha256_of",
    "stream",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
