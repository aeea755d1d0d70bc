"""The third door for plugin authors: whether a strategy keeps the rules of its contract, for a test to ask.

from townlet_train.testing import check_strategy

def test_it_keeps_the_rules():
    check_strategy(MyStrategy)
"""

from townlet_train.testing.conformance import check_strategy, examine_strategy

__all__ = ["check_strategy", "examine_strategy"]
