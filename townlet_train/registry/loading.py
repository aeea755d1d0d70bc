"""Loading one plugin inside a guard: it is imported, asked what it brings and checked, or kept out with a reason.

Imports of metadata, pluggy and pydantic wait until something is loaded: a listing may not need them.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from townlet_train.errors import TORCH_INSTALL, PluginError, TownletTrainError
from townlet_train.registry.guard import Aside, Patched, unchanged
from townlet_train.registry.offers import A_WORD, KINDS, complaint, is_word
from townlet_train.registry.policy import PluginPolicy
from townlet_train.registry.records import UNKNOWN, PluginRecord, PluginStatus

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from pathlib import Path

    import pluggy

    from townlet_train.contract import RunLogger, TrainingStrategy
    from townlet_train.envs.protocol import EnvSpec
    from townlet_train.policies.experts import ExpertBuilder
    from townlet_train.policies.protocol import Policy

    OpenLogger = Callable[[Path, int | None], RunLogger | None]


class _Incompatible(Exception):
    """A plugin was written for another version of the door."""


class _Nonsense(Exception):
    """A plugin's hook did not return what it is asked for."""


class Contribution(NamedTuple):
    """What a plugin brings when all is well with it."""

    strategies: Sequence[type[TrainingStrategy]] = ()
    logger: OpenLogger | None = None
    experts: Mapping[str, ExpertBuilder] = MappingProxyType({})
    offers: Sequence[tuple[str, str, object]] = ()  # kind, name, value


def load_plugin(
    manager: pluggy.PluginManager,
    entry_point: EntryPoint,
    policy: PluginPolicy,
    known: Iterable[type[TrainingStrategy]],
) -> tuple[PluginRecord, Contribution]:
    """One entry point's record and what it brings; strategies already `known` stay as they are."""
    distribution, version = origin_of(entry_point)
    began = time.perf_counter()

    def record(status: PluginStatus, reason: str = "", trace: str = "") -> PluginRecord:
        load_ms = round(1e3 * (time.perf_counter() - began), 3)
        return PluginRecord(entry_point.name, distribution, version, status, reason, trace, load_ms)

    objection = policy.objection(entry_point.name, distribution)
    if objection:
        return record(PluginStatus.DISABLED, objection), Contribution()
    printed = Aside()
    try:
        with redirect_stdout(printed):
            with unchanged(known):
                brought = _contributed(manager, entry_point, policy.reserved)
            return record(PluginStatus.OK), brought
    except Patched as error:
        sys.modules.pop(entry_point.module, None)  # so that it is found out the next time, too
        return record(PluginStatus.FAILED, str(error)), Contribution()
    except _Incompatible as error:
        return record(PluginStatus.INCOMPATIBLE, str(error)), Contribution()
    except _Nonsense as error:
        return record(PluginStatus.FAILED, str(error)), Contribution()
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        hint = f". Run: {TORCH_INSTALL}" if error.name == "torch" else ""
        return record(PluginStatus.FAILED, one_line(error) + hint, traceback.format_exc()), Contribution()
    except BaseException as error:
        return record(PluginStatus.FAILED, one_line(error), traceback.format_exc()), Contribution()
    finally:
        printed.tell_of(f"Plugin {entry_point.name!r} of {distribution} {version}")


def _contributed(
    manager: pluggy.PluginManager, entry_point: EntryPoint, reserved: frozenset[str]
) -> Contribution:
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
    return Contribution(strategies, logger, experts, offers)


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


def one_line(error: BaseException) -> str:
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


def build_expert(plugin: PluginRecord, env_id: str, build: ExpertBuilder, spec: EnvSpec) -> Policy:
    """An expert; `PluginError` names the plugin whose expert cannot be built or does not act."""
    whose = f"The expert for {env_id!r} of {plugin.distribution} {plugin.version}"
    try:
        expert = build(spec)
    except TownletTrainError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{whose} cannot be built: {one_line(error)}.") from error
    if not isinstance(getattr(expert, "name", None), str) or not callable(getattr(expert, "act", None)):
        raise PluginError(f"{whose} is a {type(expert).__name__}, expected a policy: a name, and `act`.")
    return expert


def contract_violation(strategy: object) -> str:
    """The first rule of the strategy contract that a class breaks, as a sentence, or an empty string."""
    from townlet_train.contract import StrategyParams

    if not isinstance(strategy, type):
        return f"townlet_train_strategies returned {strategy!r}, expected a strategy class"
    rules: dict[str, tuple[str, Callable[[object], bool]]] = {
        "name": (A_WORD, is_word),
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


def origin_of(entry_point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution an entry point belongs to."""
    try:
        distribution = entry_point.dist
        name, version = (distribution.name, distribution.version) if distribution else (None, None)
    except Exception:  # a distribution whose metadata is gone or damaged, as a broken uninstall leaves it
        return UNKNOWN, UNKNOWN
    return str(name or UNKNOWN), str(version or UNKNOWN)
