"""What is known of plugins, and whether their strategies keep the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO


class RuleDTO(BaseModel):
    """One rule of the contract: kept, broken, or not looked into, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str
    rule: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""


class PluginCheckDTO(ResultDTO):
    """Whether the strategies of a plugin keep the rules."""

    name: str = Field(description="what was asked for: a strategy, a plugin or a distribution")
    passed: bool = Field(description="no rule is broken; some may not have been looked into")
    rules: tuple[RuleDTO, ...]


class PluginRowDTO(BaseModel):
    """One plugin: who brought it, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    distribution: str
    version: str
    status: str
    load_ms: float
    strategies: tuple[str, ...]
    offers: tuple[str, ...] = ()  # beside strategies: a kind with its name, or how many there are of it
    reason: str = ""
    traceback: str = ""


class PluginListDTO(ResultDTO):
    """Every plugin that is installed."""

    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "plugins": ("name", "distribution", "version", "status", "load_ms", "strategies", "offers", "reason")
    }

    plugins: tuple[PluginRowDTO, ...]


class OfferDTO(BaseModel):
    """What a plugin brings by name beside strategies and experts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    name: str
    about: str = ""


class PluginDTO(ResultDTO):
    """One plugin, and all that it brings."""

    name: str = Field(description="of its entry point")
    distribution: str
    version: str
    status: str = Field(description="ok, disabled, failed or incompatible")
    load_ms: float = Field(ge=0, description="milliseconds its import and its hooks took")
    strategies: tuple[str, ...]
    experts: tuple[str, ...] = Field(description="environments it has an expert for")
    offers: tuple[OfferDTO, ...] = Field(
        (), description="its logger, environments, exporters, gate checks and commands"
    )
    reason: str = Field(description="why it did not load, or what of it is not used; empty where all is well")
    traceback: str = Field(description="of what it raised; empty where it raised nothing")


class PluginPinsDTO(ResultDTO):
    """The distributions whose plugins are in use."""

    pins: tuple[str, ...] = Field(description="`distribution==version`, as pip reads it")


class NewPluginDTO(ResultDTO):
    """A distribution written from the templates."""

    folder: str
    distribution: str
    strategy: str
    files: tuple[str, ...] = Field(description="within the folder")
    next_steps: tuple[str, ...] = Field(description="commands to go on with")
