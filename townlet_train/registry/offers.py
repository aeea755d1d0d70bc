"""What plugins offer by name beside strategies: environments, exporters, gate checks, commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from townlet_train.errors import ConfigError, PluginError, TownletTrainError, suggestion

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from townlet_train.contract import StrategyParams
    from townlet_train.data.checkpoint import Checkpoint
    from townlet_train.registry.records import PluginRecord

LOGGER = "logger"  # is asked for by every run, not by its name
ENVIRONMENT, EXPORTER, GATE_CHECK, COMMAND = "environment", "exporter", "gate check", "command"
_ENV_ID = re.compile(r"[\w.]+:[\w./-]+")
_WORD = re.compile(r"[a-z][a-z0-9_-]*")


class Kind(NamedTuple):
    """One kind of offer: the hook that names it, and what its names and values are."""

    hook: str
    name: str  # what a name is
    fits_name: Callable[[str], bool]
    value: str  # what a value is
    fits: Callable[[Any], bool]


def _is_check(value: object) -> bool:
    """Whether a value is a function, or a class with what it can be told."""
    if not isinstance(value, type):
        return callable(value) and not hasattr(value, "Params")
    from townlet_train.contract import StrategyParams

    params = getattr(value, "Params", None)
    return isinstance(params, type) and issubclass(params, StrategyParams) and hasattr(value, "objections")


KINDS: Mapping[str, Kind] = {
    ENVIRONMENT: Kind(
        "townlet_train_environments",
        "an id",
        bool,
        "the id of Gymnasium's with its module, as 'my_plugin.envs:Corridor-v0'",
        lambda value: isinstance(value, str) and bool(_ENV_ID.fullmatch(value)),
    ),
    EXPORTER: Kind(
        "townlet_train_exporters",
        "a lower-case word",
        lambda name: bool(_WORD.fullmatch(name)),
        "a function of checkpoint and output file",
        callable,
    ),
    GATE_CHECK: Kind(
        "townlet_train_gate_checks",
        "a lower-case word",
        lambda name: bool(_WORD.fullmatch(name)),
        "a function of a checkpoint, or a class with Params and objections",
        _is_check,
    ),
    COMMAND: Kind(
        "townlet_train_commands",
        "a lower-case word",
        lambda name: bool(_WORD.fullmatch(name)),
        "a typer.Typer",
        lambda value: hasattr(value, "registered_commands") and hasattr(value, "registered_groups"),
    ),
}


@dataclass(frozen=True)
class OfferRecord:
    """What a plugin offers under which name, and why it is not used where there is a reason."""

    kind: str
    name: str
    about: str
    distribution: str
    version: str
    reason: str = ""

    def __str__(self) -> str:
        return f"The {self.kind} {self.name!r} of {self.distribution} {self.version}: {self.reason}"


class Offer(NamedTuple):
    """A value that a plugin offers, and what is known of it."""

    record: OfferRecord
    value: Any


def complaint(kind: Kind, answer: object, reserved: Iterable[str]) -> str:
    """What is wrong with what a hook returned, or an empty string."""
    if not isinstance(answer, Mapping):
        return f"{kind.hook} returned a {type(answer).__name__}, expected a mapping by name"
    for name, value in answer.items():
        if not isinstance(name, str) or not kind.fits_name(name):
            return f"{kind.hook} returned {name!r} for a name, expected {kind.name}"
        if not kind.fits(value):
            return f"{kind.hook} returned {value!r} for {name!r}, expected {kind.value}"
        if kind is KINDS[COMMAND] and name in reserved:
            return f"its command {name!r} is named like a command of townlet-train"
    return ""


def offer(
    kind: str, name: str, value: object, plugin: PluginRecord, taken: Mapping[tuple[str, str], Offer]
) -> Offer:
    """An offer of a plugin; the first of a name is used."""
    holder = taken.get((kind, name))
    reason = (
        f"there is one of that name of {holder.record.distribution} {holder.record.version} already, which is used"
        if holder
        else ""
    )
    about = value if isinstance(value, str) else _first_line(value)
    return Offer(OfferRecord(kind, name, about, plugin.distribution, plugin.version, reason), value)


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
                f"gate.checks.{name} is for a gate check that no plugin here offers; there is "
                f"{', '.join(sorted(offered)) or 'none'}.{suggestion(name, offered)}"
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
    whose = _whose(offered)
    try:
        check = offered.value if told is None else offered.value(told).objections
        found = check(checkpoint)
        sentences = [found] if isinstance(found, str) else [*found]
        if not all(isinstance(said, str) for said in sentences):
            raise TypeError(f"it returned {found!r}, expected a list of sentences")
    except TownletTrainError:
        raise
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise PluginError(f"The {whose} failed with {what}. Nothing was judged.") from error
    return tuple(f"The {whose} objects: {said}" for said in sentences)


class Exporter(NamedTuple):
    """A plugin's format: how a policy is written in it, and how what was written acts, where the plugin says."""

    write: Callable[[Path, Checkpoint, Any], None]
    act: Callable[[Path, Mapping[str, NDArray[Any]]], NDArray[Any]] | None


def exporter(offered: Offer) -> Exporter:
    """What writes and acts for a format; both name the plugin where they fail."""
    acts = callable(getattr(offered.value, "act", None))
    return Exporter(partial(_export_by, offered), partial(_act_by, offered) if acts else None)


def _export_by(offered: Offer, output: Path, checkpoint: Checkpoint, inputs: object) -> None:
    """Have a plugin's exporter write a checkpoint to `output`, an empty file; `inputs` are for formats of ours.

    Raises:
        PluginError: it fails, or writes nothing there.
    """
    with _named(offered):
        offered.value(checkpoint, output)
    if not output.is_file() or not output.stat().st_size:
        raise PluginError(f"The {_whose(offered)} wrote nothing to the file it was handed. Nothing was left.")


def _act_by(offered: Offer, output: Path, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What the policy in a file that a plugin wrote puts out, illegal actions masked.

    Raises:
        PluginError: the plugin cannot run it.
    """
    import numpy as np

    from townlet_train.policies.network import ILLEGAL_LOGIT

    with _named(offered):
        outputs = np.asarray(offered.value.act(output, inputs))
    mask = inputs.get("action_mask")
    if mask is None or mask.shape != outputs.shape:
        return outputs
    return np.where(mask, outputs, np.float32(ILLEGAL_LOGIT))


@contextmanager
def _named(offered: Offer) -> Iterator[None]:
    """Say whose exporter raised what is no error of ours."""
    try:
        yield
    except (TownletTrainError, OSError):
        raise
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise PluginError(f"The {_whose(offered)} failed with {told}. Nothing was left.") from error


def _whose(offered: Offer) -> str:
    record = offered.record
    return f"{record.kind} {record.name!r} of {record.distribution} {record.version}"


def _first_line(value: object) -> str:
    """What a command or function says of itself."""
    info = getattr(value, "info", None)
    told = getattr(info, "help", None) or getattr(value, "__doc__", None)
    lines = told.strip().splitlines() if isinstance(told, str) else []
    return lines[0] if lines else ""
