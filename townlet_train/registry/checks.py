"""The gate checks of plugins: what each is told, and what it objects to in a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from townlet_train.errors import ConfigError, TownletTrainError, suggestion
from townlet_train.registry.offers import Offer, failed

if TYPE_CHECKING:
    from townlet_train.contract import StrategyParams
    from townlet_train.data.checkpoint import Checkpoint


def told_checks(
    offered: Mapping[str, Offer], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Callable[[Checkpoint], tuple[str, ...]]]:
    """Every gate check, told what `gate.checks` says to it.

    Raises:
        ConfigError: the settings name a check that nobody offers, or say to one what it cannot be told.
    """
    for name in settings:
        if name not in offered:
            raise ConfigError(
                f"gate.checks.{name} is for a gate check that no plugin here offers.{suggestion(name, offered)} "
                f"Known: {', '.join(sorted(offered)) or 'none'}."
            )
    return {
        name: partial(objections, each, _told(each, settings.get(name, {}))) for name, each in offered.items()
    }


def _told(offered: Offer, settings: Mapping[str, Any]) -> StrategyParams | None:
    """What a check is told; None for one that cannot be told anything."""
    where = f"gate.checks.{offered.record.name}"
    model: type[StrategyParams] | None = getattr(offered.value, "Params", None)
    if model is not None:
        from townlet_train.contract import validated_params

        return validated_params(model, settings, where)
    if settings:
        raise ConfigError(f"{where} has settings, and that check takes none. Leave them out.")
    return None


def objections(offered: Offer, told: StrategyParams | None, checkpoint: Checkpoint) -> tuple[str, ...]:
    """What a plugin's gate check objects to in a candidate, with the plugin's name.

    Raises:
        PluginError: the check fails, so that nobody knows whether it objects.
    """
    try:
        check = offered.value if told is None else offered.value(told).objections
        found = check(checkpoint)
        sentences = [found] if isinstance(found, str) else [*found]
        if not all(isinstance(said, str) for said in sentences):
            raise TypeError(f"it returned {found!r}, expected a list of sentences")
    except TownletTrainError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(offered, error, "Nothing was judged.") from error
    return tuple(f"{offered.record.title} objects: {said}" for said in sentences)
