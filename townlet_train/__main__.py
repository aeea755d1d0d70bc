"""`python -m townlet_train` is the same program as `townlet-train`."""

from townlet_train.cli import main

main()
