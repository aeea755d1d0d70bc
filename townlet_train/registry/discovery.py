"""Finding strategies: every entry point is loaded inside a guard, so that a broken plugin hurts nobody else.

Imports of metadata, pluggy and pydantic wait until something is loaded: a listing may not need them.
"""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from townlet_train.errors import TORCH_INSTALL, PluginError, TownletTrainError, suggestion
from townlet_train.registry.guard import Aside, Patched, unchanged
from townlet_train.registry.loggers import LoggerSource
from townlet_train.registry.offers import COMMAND, KINDS, LOGGER, Offer, OfferRecord, complaint, offer
from townlet_train.registry.records import (
    UNKNOWN,
    ExpertRecord,
    Listing,
    PluginRecord,
    PluginStatus,
    Registry,
    StrategyRecord,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from pathlib import Path

    import pluggy

    from townlet_train.contract import RunLogger, TrainingStrategy
    from townlet_train.envs.protocol import EnvSpec
    from townlet_train.policies.experts import ExpertBuilder
    from townlet_train.policies.protocol import Policy

    OpenLogger = Callable[[Path, int | None], RunLogger | None]

GROUP = "townlet_train"
OURS = "townlet-train"
ALLOW = "TOWNLET_TRAIN_PLUGINS"
DENY = "TOWNLET_TRAIN_DISABLE_PLUGINS"
STRICT = "TOWNLET_TRAIN_STRICT_PLUGINS"

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class PluginPolicy:
    """Which plugins may load. Names are those of entry points or distributions.

    `allowed` None allows all; otherwise only those named, and ours, which only `denied` keeps out. A strategy must
    not take a `reserved` name.
    """

    allowed: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    strict: bool = False
    reserved: frozenset[str] = frozenset()

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, strict: bool = False, reserved: Iterable[str] = ()
    ) -> PluginPolicy:
        """The policy of the three TOWNLET_TRAIN_..._PLUGINS variables; an empty allow-list allows none."""
        allowed = _names(environ[ALLOW]) if ALLOW in environ else None
        strict_flag = environ.get(STRICT, "").strip().lower() not in ("", "0", "false", "no", "off")
        return cls(allowed, _names(environ.get(DENY, "")), strict or strict_flag, frozenset(reserved))

    def objection(self, name: str, distribution: str) -> str:
        """Why a plugin must not load, or an empty string."""
        names = {_normal(name), _normal(distribution)}
        if names & self.denied:
            return f"kept out by {DENY}"
        if self.allowed is not None and not names & self.allowed and distribution != OURS:
            return f"not among those allowed by {ALLOW}"
        return ""

    def unknown(self, plugins: Iterable[PluginRecord]) -> tuple[str, ...]:
        """A sentence for each name that a variable has and none of `plugins`."""
        names = {_normal(name) for plugin in plugins for name in (plugin.name, plugin.distribution)}
        return tuple(
            f"{variable} names {name!r}, and no plugin of that name is installed.{suggestion(name, names)}"
            for variable, given in ((ALLOW, self.allowed or ()), (DENY, self.denied))
            for name in sorted(given)
            if name not in names
        )


class _Incompatible(Exception):
    """A plugin was written for another version of the door."""


class _Nonsense(Exception):
    """A plugin's hook did not return what it is asked for."""


class _Contribution(NamedTuple):
    """What a plugin brings when all is well with it."""

    strategies: Sequence[type[TrainingStrategy]] = ()
    logger: OpenLogger | None = None
    experts: Mapping[str, ExpertBuilder] = MappingProxyType({})
    offers: Sequence[tuple[str, str, object]] = ()  # kind, name, value


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
        plugin, brought = _load(manager, entry_point, policy, known)
        plugins.append(plugin)
        loggers += [] if brought.logger is None else [LoggerSource(plugin, brought.logger)]
        strategies += [_Brought(plugin, strategy) for strategy in brought.strategies]
        for env_id, build in brought.experts.items():
            players.append(_expert_record(env_id, plugin, players))
            experts.setdefault(env_id, partial(_build_guarded, plugin, env_id, build))
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
        raise PluginError(" ".join(listing.problems))
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


def _load(
    manager: pluggy.PluginManager,
    entry_point: EntryPoint,
    policy: PluginPolicy,
    known: Iterable[type[TrainingStrategy]],
) -> tuple[PluginRecord, _Contribution]:
    """One entry point's record and what it brings; strategies already `known` stay as they are."""
    distribution, version = _origin(entry_point)
    began = time.perf_counter()

    def record(status: PluginStatus, reason: str = "", trace: str = "") -> PluginRecord:
        load_ms = round(1e3 * (time.perf_counter() - began), 3)
        return PluginRecord(entry_point.name, distribution, version, status, reason, trace, load_ms)

    objection = policy.objection(entry_point.name, distribution)
    if objection:
        return record(PluginStatus.DISABLED, objection), _Contribution()
    try:
        with redirect_stdout(Aside(f"Plugin {entry_point.name!r} of {distribution} {version}")):
            with unchanged(known):
                brought = _contributed(manager, entry_point, policy.reserved)
            return record(PluginStatus.OK), brought
    except Patched as error:
        sys.modules.pop(entry_point.module, None)  # so that it is found out the next time, too
        return record(PluginStatus.FAILED, str(error)), _Contribution()
    except _Incompatible as error:
        return record(PluginStatus.INCOMPATIBLE, str(error)), _Contribution()
    except _Nonsense as error:
        return record(PluginStatus.FAILED, str(error)), _Contribution()
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        hint = f". Run: {TORCH_INSTALL}" if error.name == "torch" else ""
        return record(PluginStatus.FAILED, _one_line(error) + hint, traceback.format_exc()), _Contribution()
    except BaseException as error:
        return record(PluginStatus.FAILED, _one_line(error), traceback.format_exc()), _Contribution()


def _contributed(
    manager: pluggy.PluginManager, entry_point: EntryPoint, reserved: frozenset[str]
) -> _Contribution:
    """Import a plugin, register it and ask its hooks; when anything is raised it is unregistered."""
    from townlet_train.hookspecs import API_VERSION

    plugin = entry_point.load()
    written_for = getattr(plugin, "TOWNLET_TRAIN_API", API_VERSION)
    if written_for != API_VERSION:
        raise _Incompatible(
            f"it was written for API version {written_for!r} and this townlet-train offers {API_VERSION}; "
            f"install a release of it that fits"
        )
    manager.register(plugin, name=f"{entry_point.name} = {entry_point.value}")
    try:
        manager.check_pending()
        others = [other for other in manager.get_plugins() if other is not plugin]
        answers = manager.subset_hook_caller("townlet_train_strategies", others)()
        players = manager.subset_hook_caller("townlet_train_experts", others)()
        logger = _logger_of(manager, plugin)
        offered = {kind: manager.subset_hook_caller(KINDS[kind].hook, others)() for kind in KINDS}
        if not answers and not players and logger is None and not any(offered.values()):
            raise _Nonsense(
                "it has no function townlet_train_strategies, or another hook of townlet-train, marked with "
                "@hookimpl"
            )
        for kind, found in offered.items():
            wrong = "".join(complaint(KINDS[kind], answer, reserved) for answer in found[:1])
            if wrong:
                raise _Nonsense(wrong)
        strategies = _listed(answers[0]) if answers else []
        experts = _experts(players[0]) if players else {}
        for strategy in strategies:
            broken_rule = contract_violation(strategy)
            if broken_rule:
                raise _Nonsense(broken_rule)
            if strategy.name in reserved:
                raise _Nonsense(f"its strategy {strategy.name!r} is named like a command of townlet-train")
    except BaseException:
        manager.unregister(plugin)
        raise
    offers = [
        (kind, name, value) for kind, found in offered.items() for name, value in dict(*found[:1]).items()
    ]
    return _Contribution(strategies, logger, experts, offers)


def _logger_of(manager: pluggy.PluginManager, plugin: object) -> OpenLogger | None:
    """How to open a plugin's logger, None when it has none; a subset caller would also reach plugins found later."""
    impls = [impl for impl in manager.hook.townlet_train_logger.get_hookimpls() if impl.plugin is plugin]
    if not impls:
        return None

    def open_logger(run_dir: Path, recorded: int | None) -> RunLogger | None:
        given = {"run_dir": run_dir, "recorded": recorded}
        function: Any = impls[0].function
        opened: RunLogger | None = function(*(given[name] for name in impls[0].argnames))
        return opened

    return open_logger


def _one_line(error: BaseException) -> str:
    """An exception's type and message, also where its message cannot be made."""
    lines = traceback.format_exception_only(error)
    return " ".join((lines[-1] if isinstance(error, SyntaxError) else lines[0]).split())


def _listed(answer: object) -> list[type[TrainingStrategy]]:
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        kind = type(answer).__name__
        raise _Nonsense(f"townlet_train_strategies returned a {kind}, expected a list of strategy classes")
    return list(answer)


def _experts(answer: object) -> dict[str, ExpertBuilder]:
    if not isinstance(answer, Mapping):
        kind = type(answer).__name__
        raise _Nonsense(f"townlet_train_experts returned a {kind}, expected builders by environment id")
    for env_id, build in answer.items():
        if not isinstance(env_id, str) or not callable(build):
            raise _Nonsense(
                f"townlet_train_experts returned {build!r} for {env_id!r}, expected a function that builds an "
                f"expert, for an environment id"
            )
    return dict(answer)


def _build_guarded(plugin: PluginRecord, env_id: str, build: ExpertBuilder, spec: EnvSpec) -> Policy:
    """An expert; `PluginError` names the plugin whose expert cannot be built or does not act."""
    whose = f"The expert for {env_id!r} of {plugin.distribution} {plugin.version}"
    try:
        expert = build(spec)
    except TownletTrainError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{whose} cannot be built: {_one_line(error)}.") from error
    if not isinstance(getattr(expert, "name", None), str) or not callable(getattr(expert, "act", None)):
        raise PluginError(f"{whose} is a {type(expert).__name__}, expected a policy: a name, and `act`.")
    return expert


def contract_violation(strategy: object) -> str:
    """The first rule of the strategy contract that a class breaks, as a sentence, or an empty string."""
    from townlet_train.contract import StrategyParams

    if not isinstance(strategy, type):
        return f"townlet_train_strategies returned {strategy!r}, expected a strategy class"
    rules: dict[str, tuple[str, Callable[[object], bool]]] = {
        "name": ("a lower-case word", lambda value: isinstance(value, str) and bool(_NAME.fullmatch(value))),
        "summary": (
            "one line of text",
            lambda value: isinstance(value, str) and len(value.strip().splitlines()) == 1,
        ),
        "requires_torch": ("True or False", lambda value: isinstance(value, bool)),
        "Params": (
            "a subclass of StrategyParams",
            lambda value: isinstance(value, type) and issubclass(value, StrategyParams),
        ),
        "prepare": ("a method", callable),
        "run": ("a method", callable),
    }
    optional = {"requires": ("what pip calls each module, by the module's own name", _is_requirement)}
    rules |= {name: rule for name, rule in optional.items() if hasattr(strategy, name)}
    for attribute, (expected, fits) in rules.items():
        if not hasattr(strategy, attribute):
            return f"{strategy.__qualname__} has no {attribute}, expected {expected}"
        if not fits(getattr(strategy, attribute)):
            value = getattr(strategy, attribute)
            return f"{strategy.__qualname__}.{attribute} is {value!r}, expected {expected}"
    return ""


def _is_requirement(value: object) -> bool:
    """Whether a value names modules that are in no other, each with what pip calls it."""
    return isinstance(value, Mapping) and all(
        isinstance(module, str) and module.isidentifier() and isinstance(installed_as, str)
        for module, installed_as in value.items()
    )


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


def _origin(entry_point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution an entry point belongs to."""
    try:
        distribution = entry_point.dist
        name, version = (distribution.name, distribution.version) if distribution else (None, None)
    except Exception:  # a distribution whose metadata is gone or damaged, as a broken uninstall leaves it
        return UNKNOWN, UNKNOWN
    return str(name or UNKNOWN), str(version or UNKNOWN)


def _ours_first(entry_point: EntryPoint) -> tuple[bool, str, str]:
    distribution, _ = _origin(entry_point)
    return distribution != OURS, distribution, entry_point.name


def _names(text: str) -> frozenset[str]:
    return frozenset(_normal(name) for name in text.split(",") if name.strip())


def _normal(name: str) -> str:
    """A name as package indexes compare them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
