"""The listing of strategies without loading a plugin, as long as nothing has changed since it was last made.

Importing every plugin costs several times what the rest of `--help` does. So the listing is kept, together with
what it followed from: the search path, the times of its folders and of every file imported to make it. When one of
them differs, or a plugin was broken, the plugins are loaded again. Choosing a strategy to run always loads them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from townlet_train import __version__
from townlet_train.registry.discovery import discover
from townlet_train.registry.offers import OfferRecord
from townlet_train.registry.policy import PluginPolicy
from townlet_train.registry.records import (
    ExpertRecord,
    Listing,
    PluginRecord,
    PluginStatus,
    Registry,
    StrategyRecord,
)

FORMAT = 5


def catalogue(
    policy: PluginPolicy,
    *,
    path: Path | None = None,
    load: Callable[[PluginPolicy], Registry] = discover,
) -> Listing:
    """What `load(policy)` would list, remembered in `path` (by default in the user's cache folder)."""
    path = path or default_path()
    remembered = _read(path, policy)
    if remembered is not None:
        return remembered
    listing = load(policy).listing
    if not listing.problems and not listing.unknown:
        _write(path, policy, listing)
    return listing


def default_path() -> Path:
    """Where the listing of this interpreter is remembered."""
    from platformdirs import user_cache_path

    return user_cache_path("townlet-train") / "strategies.json"


def _read(path: Path, policy: PluginPolicy) -> Listing | None:
    """The remembered listing, or None when there is none or something it followed from has changed."""
    try:
        document = json.loads(path.read_bytes())
        if document["conditions"] != _conditions(policy):
            return None
        if any(_stamp(file) != stamp for file, stamp in document["files"].items()):
            return None
        strategies = (StrategyRecord(**record) for record in document["strategies"])
        plugins = (
            PluginRecord(**{**record, "status": PluginStatus(record["status"])})
            for record in document["plugins"]
        )
        experts = (ExpertRecord(**record) for record in document["experts"])
        offers = (OfferRecord(**record) for record in document["offers"])
        return Listing(tuple(strategies), tuple(plugins), tuple(experts), offers=tuple(offers))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, policy: PluginPolicy, listing: Listing) -> None:
    """Remember a listing; a cache folder that cannot be written is no reason to fail."""
    from townlet_train.files import write_json

    document = {
        "conditions": _conditions(policy),
        "files": {file: _stamp(file) for file in _imported_files()},
        **asdict(listing),
    }
    try:
        write_json(path, document)
    except OSError:
        return


def _conditions(policy: PluginPolicy) -> list[object]:
    """What a listing follows from besides imported files: versions, policy, and the search path."""
    allowed = None if policy.allowed is None else sorted(policy.allowed)
    folders = [[folder, _stamp(folder or os.curdir)] for folder in sys.path]
    return [FORMAT, __version__, sys.version, sys.prefix, allowed, sorted(policy.denied), folders]


def _imported_files() -> list[str]:
    """Files of the modules imported so far, the standard library's aside."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] not in _STANDARD]
    files = (getattr(module, "__file__", None) for module in modules)
    return sorted({file for file in files if file})


def _stamp(path: str) -> list[int] | None:
    """Time and size of a file or folder, or None when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_mtime_ns, status.st_size]


_STANDARD = sys.stdlib_module_names
