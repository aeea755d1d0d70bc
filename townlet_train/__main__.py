"""`python -m townlet_train` is the same program as `townlet-train`."""

import sys

from townlet_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
