"""What is known about plugins and strategies, as plain values, and choosing a strategy among them.

Imports nothing heavy, so that a listing costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from townlet_train.errors import (
    EnvironmentCreationError,
    PluginError,
    TorchNotAvailableError,
    UnknownNameError,
    suggestion,
)
from townlet_train.policies.experts import EXPERTS, Experts
from townlet_train.registry.checks import told_checks
from townlet_train.registry.exporters import Exporter, exporter
from townlet_train.registry.offers import ENVIRONMENT, EXPORTER, GATE_CHECK, Offer, OfferRecord

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.contract import StrategyParams, TrainingStrategy
    from townlet_train.registry.loggers import LoggerSource
    from townlet_train.services.gate.integrity import GateChecks

SHIPPED_APART = {  # strategies, commands and formats of distributions of their own
    "a2c": "townlet-train-a2c",
    "dagger": "townlet-train-dagger",
    "import-sb3": "townlet-train-sb3",
    "random-search": "townlet-train-random-search",
    "sb3": "townlet-train-sb3",
    "sb3-a2c": "townlet-train-sb3",
    "sb3-ppo": "townlet-train-sb3",
}


UNKNOWN = "unknown"  # the distribution of an entry point whose metadata is gone


class PluginStatus(StrEnum):
    """What became of an entry point."""

    OK = "ok"
    DISABLED = "disabled"
    FAILED = "failed"
    INCOMPATIBLE = "incompatible"


def how_to_get(name: str) -> str:
    """What brings a name that nobody here registered, as a sentence; empty where that is not known."""
    home = SHIPPED_APART.get(name)
    return f"It is in {home}, which is not installed. Run: pip install {home}" if home else ""


@dataclass(frozen=True)
class PluginRecord:
    """One entry point: who brought it, and what became of it."""

    name: str
    distribution: str
    version: str
    status: PluginStatus
    reason: str = ""
    traceback: str = ""
    load_ms: float = field(default=0.0, compare=False)  # milliseconds its import and its hooks took

    @property
    def broken(self) -> bool:
        """Whether it should have worked and did not."""
        return self.status in (PluginStatus.FAILED, PluginStatus.INCOMPATIBLE)

    @property
    def known(self) -> bool:
        """Whether its distribution says which it is."""
        return UNKNOWN not in (self.distribution, self.version)

    def __str__(self) -> str:
        return f"Plugin {self.name!r} of {self.distribution} {self.version}: {self.reason}"


@dataclass(frozen=True)
class StrategyRecord:
    """One strategy of a working plugin, and whether it can run here."""

    name: str
    summary: str
    requires_torch: bool
    available: bool
    reason: str
    distribution: str
    version: str

    @property
    def address(self) -> str:
        """The name that no other distribution's strategy has."""
        return f"{self.distribution}:{self.name}"

    def __str__(self) -> str:
        return f"Strategy {self.name!r} of {self.distribution} {self.version}: {self.reason}"


@dataclass(frozen=True)
class ExpertRecord:
    """The environment an expert plays, who brought it, and why it is not used where there is a reason."""

    env: str
    distribution: str
    version: str
    reason: str = ""

    def __str__(self) -> str:
        return f"The expert for {self.env!r} of {self.distribution} {self.version}: {self.reason}"


@dataclass(frozen=True)
class Listing:
    """Everything that was found, without the classes."""

    strategies: tuple[StrategyRecord, ...]
    plugins: tuple[PluginRecord, ...]
    experts: tuple[ExpertRecord, ...] = ()
    unknown: tuple[str, ...] = ()  # sentences on what the variables name: nobody, or ours to be kept out
    offers: tuple[OfferRecord, ...] = ()  # loggers, environments, exporters, gate checks and commands

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each broken plugin, each name claimed twice and each expert or offer that is not used."""
        broken = (str(plugin) for plugin in self.plugins if plugin.broken)
        return (*broken, *(str(each) for each in self._held_back))

    @property
    def _held_back(self) -> tuple[StrategyRecord | ExpertRecord | OfferRecord, ...]:
        """What plugins that work bring and that has not its name for itself, or is not used."""
        experts = (expert for expert in self.experts if expert.reason)
        return (*self.clashes, *experts, *(offer for offer in self.offers if offer.reason))

    def reason(self, plugin: PluginRecord) -> str:
        """Why a plugin did not load, or what its distribution brings without having its name for itself, and why."""
        mine = (str(each) for each in self._held_back if each.distribution == plugin.distribution)
        return plugin.reason or "; ".join(mine)

    def offered(self, kind: str) -> dict[str, OfferRecord]:
        """The offers of a kind that are used, by name."""
        return {offer.name: offer for offer in self.offers if offer.kind == kind and not offer.reason}

    def with_env(self, config: RunConfig) -> RunConfig:
        """The config in the environment that a plugin offers under the name in it, or whose id that is.

        What Gymnasium brings itself stays Gymnasium's.

        Raises:
            EnvironmentCreationError: it is not quite such a name, and nothing that Gymnasium knows; or the plugin's
                module is not there.
        """
        environments = self.offered(ENVIRONMENT)
        for offered in environments.values():
            if config.env in (offered.name, offered.about.partition(":")[2]):
                if _gymnasium_knows(config.env, itself=True):
                    return config
                _check_module(offered)
                return config.model_copy(update={"env": offered.about})
        close = "" if config.env == "town" or ":" in config.env else suggestion(config.env, environments)
        if close and not _gymnasium_knows(config.env):
            raise EnvironmentCreationError(f"No environment named {config.env!r}.{close}")
        return config

    @property
    def clashes(self) -> tuple[StrategyRecord, ...]:
        """Strategies that share their name with another, and so cannot be called by it alone."""
        names = [strategy.name for strategy in self.strategies]
        return tuple(
            strategy for strategy in self.strategies if strategy.reason and names.count(strategy.name) > 1
        )


def _check_module(environment: OfferRecord) -> None:
    """Find the module that registers a plugin's environment.

    Raises:
        EnvironmentCreationError: there is none.
    """
    from importlib.util import find_spec

    module = environment.about.partition(":")[0]
    try:
        found = find_spec(module) is not None  # imports what the module is in
    except ModuleNotFoundError:
        found = False
    if not found:
        raise EnvironmentCreationError(
            f"{environment.title} cannot be built: there is no module {module!r}, which is to register "
            f"{environment.about!r}. Install what {environment.distribution} needs, or tell its author."
        )


def _gymnasium_knows(env_id: str, *, itself: bool = False) -> bool:
    """Whether an id is registered with Gymnasium; with `itself`, by Gymnasium and by nobody else."""
    import gymnasium

    try:
        spec = gymnasium.spec(env_id)
    except gymnasium.error.Error:
        return False
    return not itself or str(spec.entry_point).startswith("gymnasium.")


@dataclass(frozen=True)
class Registry:
    """The strategies, loggers and experts that can be used, and the listing they come from."""

    listing: Listing
    classes: Mapping[str, type[TrainingStrategy]]
    loggers: tuple[LoggerSource, ...] = ()
    experts: Experts = field(default_factory=lambda: EXPERTS)
    addresses: Mapping[str, type[TrainingStrategy]] = field(default_factory=dict)  # by distribution:name
    torch: bool = True  # whether it is installed
    offers: tuple[Offer, ...] = ()

    def offered(self, kind: str) -> dict[str, Offer]:
        """The environments, exporters or commands of plugins, by name."""
        return {offer.record.name: offer for offer in self.offers if offer.record.kind == kind}

    def gate_checks(self, settings: Mapping[str, Mapping[str, Any]]) -> GateChecks:
        """What plugins object to in a candidate, by the name of the check; each is told its own of the settings.

        Raises:
            ConfigError: they name a check that nobody offers, or tell one what it cannot be told.
        """
        return told_checks(self.offered(GATE_CHECK), settings)

    def exporters(self) -> Mapping[str, Exporter]:
        """What writes a checkpoint in a plugin's format, and acts from there, by the format's name."""
        return {name: exporter(offer) for name, offer in self.offered(EXPORTER).items()}

    @property
    def strategies(self) -> tuple[StrategyRecord, ...]:
        """One record per strategy found, those that clash or cannot run included."""
        return self.listing.strategies

    @property
    def plugins(self) -> tuple[PluginRecord, ...]:
        """One record per entry point found."""
        return self.listing.plugins

    def plugin(self, name: str) -> PluginRecord:
        """The plugin of an entry point or a distribution, one of whose strategies may be named as well.

        Raises:
            UnknownNameError: there is none.
        """
        for plugin in self.plugins:
            if name in (plugin.name, plugin.distribution):
                return plugin
        for strategy in self.strategies:
            if name == strategy.name:
                return next(plugin for plugin in self.plugins if plugin.distribution == strategy.distribution)
        raise UnknownNameError(
            "plugin",
            name,
            {plugin.name for plugin in self.plugins},
            "Only what is installed is known. Run: pip install DISTRIBUTION, or pip install -e FOLDER",
        )

    def hint(self, name: str) -> str:
        """Which plugins were left out and why, or else what brings a name that nobody registered; may be empty."""
        return " ".join(str(plugin) for plugin in self.plugins if plugin.reason) or how_to_get(name)

    def params(self) -> dict[str, type[StrategyParams]]:
        """The params model of each strategy by name."""
        return {name: strategy.Params for name, strategy in self.classes.items()}

    def find(self, name: str) -> type[TrainingStrategy]:
        """The class registered under a name, or under `distribution:name`, whether or not it can run here.

        Raises:
            PluginError: the name is that of a plugin which is broken or disabled, or two plugins claim it.
            UnknownNameError: nobody registered it.
        """
        if name in self.classes:
            return self.classes[name]
        if name in self.addresses:
            return self.addresses[name]
        for strategy in self.listing.clashes:
            if strategy.name == name:
                raise PluginError(f"The name {name!r} is no one strategy's: {strategy.reason}.")
        for plugin in self.plugins:
            if plugin.name == name and plugin.status is not PluginStatus.OK:
                raise PluginError(str(plugin))
        known = self.addresses if ":" in name else self.classes
        raise UnknownNameError("strategy", name, known, how_to_get(name))

    def record(self, name: str) -> StrategyRecord:
        """What is known of the strategy that `find` gives.

        Raises:
            PluginError, UnknownNameError: as `find`.
        """
        self.find(name)
        return next(record for record in self.strategies if name in (record.name, record.address))

    def select(self, name: str) -> type[TrainingStrategy]:
        """The class registered under a name, ready to run.

        Raises:
            TorchNotAvailableError: it trains with torch, which is not installed.
            PluginError: as `find`; or another module that it needs is not installed.
            UnknownNameError: as `find`.
        """
        strategy, record = self.find(name), self.record(name)
        if strategy.requires_torch and not self.torch:
            raise TorchNotAvailableError(name)
        if record not in self.listing.clashes and not record.available:
            raise PluginError(str(record))
        return strategy
