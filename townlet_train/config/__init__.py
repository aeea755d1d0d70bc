"""Every knob of a run, frozen; how layers of settings become one config with provenance."""

from townlet_train.config.gate import GateSettings, Guardrail
from townlet_train.config.layers import DEFAULT, Settings, flatten, load, nest
from townlet_train.config.run import (
    EvaluationConfig,
    RolloutConfig,
    RunConfig,
    SocialConfig,
    SocialScheduleEntry,
    config_hash,
)
from townlet_train.config.town import TownConfig

__all__ = [
    "DEFAULT",
    "EvaluationConfig",
    "GateSettings",
    "Guardrail",
    "RolloutConfig",
    "RunConfig",
    "Settings",
    "SocialConfig",
    "SocialScheduleEntry",
    "TownConfig",
    "config_hash",
    "flatten",
    "load",
    "nest",
]
