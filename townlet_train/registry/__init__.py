"""Which training methods are installed: found by entry point, checked, and kept apart when broken."""

from townlet_train.registry.catalogue import catalogue
from townlet_train.registry.discovery import discover
from townlet_train.registry.loading import contract_violation
from townlet_train.registry.loggers import LoggerSource, RunLoggers
from townlet_train.registry.offers import (
    COMMAND,
    ENVIRONMENT,
    EXPORTER,
    GATE_CHECK,
    Offer,
    OfferRecord,
    failed,
)
from townlet_train.registry.policy import PluginPolicy
from townlet_train.registry.records import (
    ExpertRecord,
    Listing,
    PluginRecord,
    PluginStatus,
    Registry,
    StrategyRecord,
)

__all__ = [
    "COMMAND",
    "ENVIRONMENT",
    "EXPORTER",
    "GATE_CHECK",
    "ExpertRecord",
    "Listing",
    "LoggerSource",
    "Offer",
    "OfferRecord",
    "PluginPolicy",
    "PluginRecord",
    "PluginStatus",
    "Registry",
    "RunLoggers",
    "StrategyRecord",
    "catalogue",
    "contract_violation",
    "discover",
    "failed",
]
