"""townlet-train: from demonstrations to a policy you may ship.

The command line is `townlet-train`; plugin authors start at `townlet_train.api`.
"""

__version__ = "0.1.0"
