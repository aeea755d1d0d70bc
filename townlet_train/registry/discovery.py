"""Finding plugins: every entry point is loaded by itself, so that a broken one hurts nobody else; names are given out.

Imports of metadata, pluggy and pydantic wait until something is loaded: a listing may not need them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from townlet_train.errors import TORCH_INSTALL, PluginError
from townlet_train.registry.loading import build_expert, load_plugin, origin_of
from townlet_train.registry.loggers import LoggerSource
from townlet_train.registry.offers import COMMAND, LOGGER, Offer, OfferRecord, offer
from townlet_train.registry.policy import OURS, PluginPolicy
from townlet_train.registry.records import (
    ExpertRecord,
    Listing,
    PluginRecord,
    Registry,
    StrategyRecord,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from townlet_train.contract import TrainingStrategy
    from townlet_train.policies.experts import ExpertBuilder

GROUP = "townlet_train"


class _Brought(NamedTuple):
    """A strategy and the plugin that brings it."""

    plugin: PluginRecord
    strategy: type[TrainingStrategy]

    @property
    def address(self) -> str:
        return f"{self.plugin.distribution}:{self.strategy.name}"


def discover(
    policy: PluginPolicy | None = None, entry_points: Iterable[EntryPoint] | None = None
) -> Registry:
    """Load every plugin the policy lets in. Nothing a plugin prints while loading reaches standard output.

    Raises:
        PluginError: the policy is strict and a plugin is broken or two claim one name.
    """
    from importlib import metadata

    import pluggy

    from townlet_train import hookspecs

    policy = policy or PluginPolicy()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    found = metadata.entry_points(group=GROUP) if entry_points is None else entry_points
    plugins: list[PluginRecord] = []
    strategies: list[_Brought] = []
    loggers: list[LoggerSource] = []
    experts: dict[str, ExpertBuilder] = {}
    players: list[ExpertRecord] = []
    offers: list[Offer] = []
    used: dict[tuple[str, str], Offer] = {}
    for entry_point in sorted(found, key=_ours_first):
        known = [each.strategy for each in strategies]
        plugin, brought = load_plugin(manager, entry_point, policy, known)
        plugins.append(plugin)
        loggers += [] if brought.logger is None else [LoggerSource(plugin, brought.logger)]
        strategies += [_Brought(plugin, strategy) for strategy in brought.strategies]
        for env_id, build in brought.experts.items():
            players.append(_expert_record(env_id, plugin, players))
            experts.setdefault(env_id, partial(build_expert, plugin, env_id, build))
        for kind, name, value in brought.offers:
            offers.append(offer(kind, name, value, plugin, used))
            used.setdefault((kind, name), offers[-1])
    torch = torch_installed()
    records = tuple(_record(brought, strategies, torch=torch) for brought in strategies)
    offers = [_yielding(each, strategies) for each in offers]
    listeners = (each.plugin for each in loggers)
    heard = (OfferRecord(LOGGER, each.name, "", each.distribution, each.version) for each in listeners)
    offered = (*heard, *(each.record for each in offers))
    listing = Listing(records, tuple(plugins), tuple(players), policy.unknown(plugins), offered)
    if policy.strict and listing.problems:
        raise PluginError("\n".join(listing.problems))
    return Registry(
        listing,
        {
            brought.strategy.name: brought.strategy
            for brought in strategies
            if not _clash(brought, strategies)
        },
        tuple(loggers),
        experts,
        {brought.address: brought.strategy for brought in reversed(strategies)},
        torch,
        tuple(each for each in offers if not each.record.reason),
    )


def _yielding(offered: Offer, strategies: Iterable[_Brought]) -> Offer:
    """An offer, with a reason where it is a command and a strategy has its name."""
    record = offered.record
    holder = next((each.plugin for each in strategies if each.strategy.name == record.name), None)
    if record.kind != COMMAND or record.reason or holder is None:
        return offered
    reason = f"there is a strategy of that name of {holder.distribution} {holder.version}, which is used"
    return offered._replace(record=replace(record, reason=reason))


def torch_installed() -> bool:
    """Whether torch could be imported, found without importing it."""
    from importlib.util import find_spec

    return find_spec("torch") is not None


def _record(brought: _Brought, everything: Sequence[_Brought], *, torch: bool) -> StrategyRecord:
    plugin, strategy = brought
    reason = _clash(brought, everything)
    if not reason and strategy.requires_torch and not torch:
        reason = f"torch is not installed. Run: {TORCH_INSTALL}"
    reason = reason or _missing(strategy)
    return StrategyRecord(
        name=strategy.name,
        summary=strategy.summary,
        requires_torch=strategy.requires_torch,
        available=not reason,
        reason=reason,
        distribution=plugin.distribution,
        version=plugin.version,
    )


def _missing(strategy: type[TrainingStrategy]) -> str:
    """Why a strategy cannot run for want of a module that it names, found without importing any; or an empty string."""
    from importlib.util import find_spec

    for module, installed_as in getattr(strategy, "requires", {}).items():
        if find_spec(module) is None:
            return f"{module} is not installed. Run: pip install {installed_as!r}"
    return ""


def _clash(brought: _Brought, everything: Sequence[_Brought]) -> str:
    """Why a strategy does not have its name for itself, or an empty string; a built-in keeps its own."""
    same = [other for other in everything if other.strategy.name == brought.strategy.name]
    first = same[0]
    if brought is first and (len(same) == 1 or first.plugin.distribution == OURS):
        return ""
    if first.plugin.distribution == OURS:
        return (
            f"the name is already taken by {OURS} {first.plugin.version}, and {brought.plugin.distribution} "
            f"{brought.plugin.version} has to be called {brought.address}"
        )
    distributions = {other.plugin.distribution: other for other in same}
    if len(distributions) == 1:
        return "" if brought is first else f"{brought.plugin.distribution} brings two of that name"
    claims = " and ".join(f"{name} {other.plugin.version}" for name, other in distributions.items())
    return f"{claims} claim it. Say which: {' or '.join(other.address for other in distributions.values())}"


def _expert_record(env_id: str, plugin: PluginRecord, players: Iterable[ExpertRecord]) -> ExpertRecord:
    holder = next((player for player in players if player.env == env_id), None)
    reason = (
        f"the environment already has one of {holder.distribution} {holder.version}, which is used"
        if holder
        else ""
    )
    return ExpertRecord(env_id, plugin.distribution, plugin.version, reason)


def _ours_first(entry_point: EntryPoint) -> tuple[bool, str, str]:
    distribution, _ = origin_of(entry_point)
    return distribution != OURS, distribution, entry_point.name
