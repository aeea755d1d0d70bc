"""What this plugin cannot do without, asked for before anything is done."""

from __future__ import annotations

from importlib.util import find_spec

from townlet_train.api import TownletTrainError

INSTALLED_BY = {"torch": "townlet-train[torch]", "stable_baselines3": "stable-baselines3"}


def check_installed(what: str, *modules: str) -> None:
    """Refuse `what` where a module that it needs is not installed, without importing any.

    Raises:
        TownletTrainError: one is missing; says how to install it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise TownletTrainError(
                f"{what} needs {module}, which is not installed. Run: pip install '{INSTALLED_BY[module]}'"
            )
