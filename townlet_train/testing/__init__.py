"""The third door for plugin authors: whether a strategy keeps the rules of its contract, for a test to ask.

    from townlet_train.testing import check_strategy

    def test_it_keeps_the_rules():
        check_strategy(MyStrategy)

Importing it is cheap: what runs a strategy is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from townlet_train.testing.conformance import check_strategy, examine_strategy

__all__ = ["check_strategy", "examine_strategy"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("townlet_train.testing.conformance"), name)
