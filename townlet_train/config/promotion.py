"""Where releases are and what makes a candidate ready, where nobody says."""

from __future__ import annotations

from pathlib import Path

PROMOTION_DIR = Path("results/promotion")
REQUIRED_PASSES = 2  # in a row
