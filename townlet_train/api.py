"""The plugin author's door: everything a strategy needs, and nothing that moves between releases."""

from townlet_train.contract import AnnealContext, Progress, StrategyParams, TrainingContext, TrainingStrategy
from townlet_train.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    TorchNotAvailableError,
    TownletTrainError,
    TrainingError,
)
from townlet_train.hookspecs import API_VERSION, hookimpl
from townlet_train.results import BCTrainingResultDTO, EvaluationDTO, PPOTrainingResultDTO, TrainingResultDTO

__all__ = [
    "API_VERSION",
    "AnnealContext",
    "BCTrainingResultDTO",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EvaluationDTO",
    "Interrupted",
    "PPOTrainingResultDTO",
    "Progress",
    "StrategyParams",
    "TorchNotAvailableError",
    "TownletTrainError",
    "TrainingContext",
    "TrainingError",
    "TrainingResultDTO",
    "TrainingStrategy",
    "hookimpl",
]
