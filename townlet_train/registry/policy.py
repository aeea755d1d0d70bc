"""Which plugins may load, as variables of the environment say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from townlet_train.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from townlet_train.registry.records import PluginRecord

OURS = "townlet-train"  # the distribution that brings the built-in strategies
ALLOW = "TOWNLET_TRAIN_PLUGINS"
DENY = "TOWNLET_TRAIN_DISABLE_PLUGINS"
STRICT = "TOWNLET_TRAIN_STRICT_PLUGINS"


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
        """The policy of the three TOWNLET_TRAIN_..._PLUGINS variables; an empty allow-list allows none.

        Raises:
            ConfigError: the one that says whether to be strict says neither.
        """
        allowed = _names(environ[ALLOW]) if ALLOW in environ else None
        flag = environ.get(STRICT, "").strip().lower()
        if flag not in ("", "0", "false", "1", "true"):
            raise ConfigError(f"{STRICT} is {environ[STRICT]!r}, expected 1 or true, or 0 or false.")
        strict = strict or flag in ("1", "true")
        return cls(allowed, _names(environ.get(DENY, "")), strict, frozenset(reserved))

    def objection(self, name: str, distribution: str) -> str:
        """Why a plugin must not load, or an empty string."""
        names = {_normal(name), _normal(distribution)}
        if names & self.denied:
            return f"kept out by {DENY}"
        if self.allowed is not None and not names & self.allowed and distribution != OURS:
            return f"not among those allowed by {ALLOW}"
        return ""

    def unknown(self, plugins: Iterable[PluginRecord]) -> tuple[str, ...]:
        """A sentence for each name that a variable has and none of `plugins`, and one where ours are kept out."""
        found = {(plugin.name, plugin.distribution) for plugin in plugins}
        names = {_normal(name) for both in found for name in both}
        ours = any(distribution == OURS and self.objection(name, OURS) for name, distribution in found)
        kept_out = (
            f"{DENY} keeps out the strategies of {OURS} itself, so that a name of theirs, as 'bc', is free to others.",
        )
        misspelt = tuple(
            f"{variable} names {name!r}, and no plugin of that name is installed.{suggestion(name, names)}"
            for variable, given in ((ALLOW, self.allowed or ()), (DENY, self.denied))
            for name in sorted(given)
            if name not in names
        )
        return (*misspelt, *(kept_out if ours else ()))


def _names(text: str) -> frozenset[str]:
    return frozenset(_normal(name) for name in text.split(",") if name.strip())


def _normal(name: str) -> str:
    """A name as package indexes compare them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
