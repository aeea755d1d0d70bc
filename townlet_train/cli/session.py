"""What the commands of one invocation share: the registry, the listing, and the settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from townlet_train.cli.commands import COMMANDS
from townlet_train.cli.output import say
from townlet_train.policies.experts import EXPERT, EXPERTS, Experts
from townlet_train.registry import GATE_CHECK, Listing, PluginPolicy, Registry, catalogue, discover
from townlet_train.registry.policy import STRICT

if TYPE_CHECKING:
    from townlet_train.config import RunConfig, Settings
    from townlet_train.contract import TrainingStrategy
    from townlet_train.services.gate.integrity import GateChecks

_REGISTRY = "townlet_train.registry"
_LISTING = "townlet_train.listing"
_WARNED = "townlet_train.warned"


def plugin_policy(context: typer.Context) -> PluginPolicy:
    """Which plugins may load, by the environment and `--strict-plugins`."""
    strict = bool(context.find_root().params.get("strict_plugins"))
    return PluginPolicy.from_environment(os.environ, strict=strict, reserved=COMMANDS)


def _lenient_policy() -> PluginPolicy:
    """The same, of a listing that shows what is wrong; the program itself refuses to go on where it is strict."""
    return PluginPolicy.from_environment(os.environ | {STRICT: "0"}, reserved=COMMANDS)


def session_registry(context: typer.Context) -> Registry:
    """The registry, loaded once per invocation."""
    if _REGISTRY not in context.meta:
        context.meta[_REGISTRY] = discover(_lenient_policy())
        _warn_of_unknown(context, context.meta[_REGISTRY].listing)
    registry: Registry = context.meta[_REGISTRY]
    return registry


def session_listing(context: typer.Context) -> Listing:
    """What the registry lists, without loading plugins where nothing has changed."""
    if _REGISTRY in context.meta:
        return session_registry(context).listing
    if _LISTING not in context.meta:
        context.meta[_LISTING] = catalogue(_lenient_policy())
        _warn_of_unknown(context, context.meta[_LISTING])
    listing: Listing = context.meta[_LISTING]
    return listing


def _warn_of_unknown(context: typer.Context, listing: Listing) -> None:
    """Say once per invocation which plugins were named that nobody has; a name misspelt would have no effect."""
    if not context.meta.setdefault(_WARNED, False):
        context.meta[_WARNED] = True
        for sentence in listing.unknown:
            say(f"Warning: {sentence}")


def experts_for(context: typer.Context, policy: str | None) -> Experts:
    """The experts to choose from; plugins are loaded for them only where the expert is to act."""
    return session_registry(context).experts if policy == EXPERT else EXPERTS


def gate_checks_of(context: typer.Context, settings: Mapping[str, Mapping[str, Any]]) -> GateChecks:
    """What plugins object to in a candidate, told their settings; they are loaded only where one does."""
    wanted = settings or session_listing(context).offered(GATE_CHECK)
    return session_registry(context).gate_checks(settings) if wanted else {}


def load_settings(
    context: typer.Context,
    *,
    files: Iterable[Path] | None = None,
    preset: str | None = None,
    sets: Iterable[str] | None = None,
    named: Mapping[str, object] | None = None,
    chosen: type[TrainingStrategy] | None = None,
) -> Settings:
    """The run's settings from all layers; `named` maps dotted keys to the values of options, None when not given.

    The section of a strategy's name is that of the one `chosen`, where several have it.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    from townlet_train.config import load

    own = {} if chosen is None else {chosen.name: chosen.Params}
    settings = load(
        files=files or (),
        preset=preset,
        sets=sets or (),
        named=named,
        sections=lambda: session_registry(context).params() | own,
    )
    return replace(settings, config=session_listing(context).with_env(settings.config))


def in_env_of(context: typer.Context, settings: Settings, checkpoints: Iterable[Path]) -> RunConfig:
    """The config in the environment of the first checkpoint that tells one, where no environment was named."""
    from townlet_train.services.environment import in_env_of

    config, _ = in_env_of(settings.config, settings.origin, checkpoints)
    return session_listing(context).with_env(config)
