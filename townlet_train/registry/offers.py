"""What plugins offer by name beside strategies: environments, exporters, gate checks, commands; kinds and records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from townlet_train.envs.build import TOWN
from townlet_train.errors import PluginError
from townlet_train.registry.policy import OURS

if TYPE_CHECKING:
    from townlet_train.registry.records import PluginRecord

LOGGER = "logger"  # is asked for by every run, not by its name
ENVIRONMENT, EXPORTER, GATE_CHECK, COMMAND = "environment", "exporter", "gate check", "command"
A_WORD = "a lower-case word"

OUR_FORMATS = ("npz", "onnx", "safetensors", "torchscript")
_GYMNASIUMS = re.compile(r".*-v\d+")  # how ids of Gymnasium's end
_ENV_ID = re.compile(r"[\w.]+:[\w./-]+")
_WORD = re.compile(r"[a-z][a-z0-9_-]*")


class Kind(NamedTuple):
    """One kind of offer: the hook that names it, and what its names and values are."""

    hook: str
    name: str  # what a name is
    fits_name: Callable[[str], bool]
    value: str  # what a value is
    fits: Callable[[Any], bool]


def is_word(name: object) -> bool:
    """Whether something can be typed as a name: `A_WORD`."""
    return isinstance(name, str) and bool(_WORD.fullmatch(name))


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
        A_WORD,
        is_word,
        "a function of checkpoint and output file",
        callable,
    ),
    GATE_CHECK: Kind(
        "townlet_train_gate_checks",
        A_WORD,
        is_word,
        "a function of a checkpoint, or a class with Params and objections",
        _is_check,
    ),
    COMMAND: Kind(
        "townlet_train_commands",
        A_WORD,
        is_word,
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

    @property
    def title(self) -> str:
        """Which one it is, within a sentence."""
        return f"The {self.kind} {self.name!r} of {self.distribution} {self.version}"

    def __str__(self) -> str:
        return f"{self.title}: {self.reason}"


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
    """An offer of a plugin; the first of a name is used, and no name of ours."""
    holder = taken.get((kind, name))
    reason = _not_to_have(kind, name, str(value))
    if holder and not reason:
        whose = f"{holder.record.distribution} {holder.record.version}"
        reason = f"there is one of that name of {whose} already, which is used"
    about = value if isinstance(value, str) else _first_line(value)
    return Offer(OfferRecord(kind, name, about, plugin.distribution, plugin.version, reason), value)


def _not_to_have(kind: str, name: str, value: str) -> str:
    """Why an offer cannot have a name, or stand for an id, that means something already; or an empty string."""
    if kind == EXPORTER and name in OUR_FORMATS:
        return f"there is one of that name of {OURS} itself, which is used"
    if kind != ENVIRONMENT:
        return ""
    if TOWN in (name, value.partition(":")[2]):
        return f"{TOWN!r} is the town of {OURS}, which is used"
    if ":" in name:
        return "a name with a colon is an id with its module, or EnvPool's, and is taken as that"
    if _GYMNASIUMS.fullmatch(name):
        return "a name that ends like an id of Gymnasium's is taken as that; call it otherwise"
    return ""


def failed(offered: Offer, error: BaseException, then: str) -> PluginError:
    """What to raise where something of a plugin raised what is no error of ours; `then` says what that means."""
    told = f"{type(error).__name__}: {str(error).rstrip('.')}"
    return PluginError(f"{offered.record.title} failed with {told}. {then}")


def _first_line(value: object) -> str:
    """What a command or function says of itself."""
    info = getattr(value, "info", None)
    told = getattr(info, "help", None) or getattr(value, "__doc__", None)
    lines = told.strip().splitlines() if isinstance(told, str) else []
    return lines[0] if lines else ""
