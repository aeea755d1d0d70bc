"""The rules of the strategy contract, each tried on a strategy in a folder that is thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from townlet_train.config import RunConfig
from townlet_train.contract import Progress
from townlet_train.errors import PluginError
from townlet_train.registry import Registry, contract_violation
from townlet_train.results import RuleDTO
from townlet_train.testing.bench import Bench, BrokenRule, Unchecked
from townlet_train.testing.rules import RULES

SMALL_WORLD: Mapping[str, Any] = {"env": "CartPole-v1", "seed": 5}


def check_strategy(
    strategy: type[Any],
    params: Mapping[str, Any] | None = None,
    *,
    config: RunConfig | Mapping[str, Any] = SMALL_WORLD,
) -> tuple[RuleDTO, ...]:
    """What came of every rule, when none is broken; options as for `examine_strategy`.

    Raises:
        PluginError: a sentence for each rule that the strategy breaks.
    """
    rules = examine_strategy(strategy, params, config=config)
    broken = [rule.reason for rule in rules if rule.outcome == "failed"]
    if broken:
        raise PluginError(" ".join(broken))
    return rules


def examine_strategy(
    strategy: type[Any],
    params: Mapping[str, Any] | None = None,
    *,
    config: RunConfig | Mapping[str, Any] = SMALL_WORLD,
    registry: Registry | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[RuleDTO, ...]:
    """Every rule in turn: passed, failed with a sentence, or skipped with the reason why it could not be tried.

    The strategy is run a few times with `params`. Those of the names in `bench.SMALL` that are not given are small,
    and a param `manifest` gets a small recording of the environment.
    """
    violation = contract_violation(strategy)
    if violation:
        name = getattr(strategy, "name", None) or getattr(strategy, "__name__", repr(strategy))
        return (RuleDTO(strategy=str(name), rule="contract", outcome="failed", reason=f"{violation}."),)
    kept = RuleDTO(strategy=strategy.name, rule="contract", outcome="passed")
    world = config if isinstance(config, RunConfig) else RunConfig.model_validate(config)
    with tempfile.TemporaryDirectory(prefix="townlet-train-check-", ignore_cleanup_errors=True) as folder:
        bench = Bench(strategy, world, params or {}, Path(folder), registry=registry, report=report)
        return (kept, *(_outcome(bench, name, rule) for name, rule in RULES.items()))


def _outcome(bench: Bench, name: str, rule: Callable[[Bench], None]) -> RuleDTO:
    outcome, reason = "passed", ""
    try:
        rule(bench)
    except BrokenRule as broken:
        outcome, reason = "failed", f"{bench.strategy.__qualname__} breaks the rule {name!r}: {broken}"
    except Unchecked as unchecked:
        outcome, reason = "skipped", str(unchecked)
    return RuleDTO.model_validate(
        {"strategy": bench.strategy.name, "rule": name, "outcome": outcome, "reason": reason}
    )
