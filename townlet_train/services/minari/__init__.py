"""Minari datasets read as demonstrations, and recordings written as Minari datasets."""

from townlet_train.services.minari.exporting import export_minari
from townlet_train.services.minari.importing import import_minari

__all__ = ["export_minari", "import_minari"]
