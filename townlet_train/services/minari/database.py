"""Minari's own folder of datasets: where one belongs, and which are there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from townlet_train.errors import MissingExtraError, StorageError, UsageError

NAMES = "townlet_train"  # where our datasets keep what Minari has no place for


def load_minari() -> Any:
    """The package; `MissingExtraError` where it is not installed, or reads no HDF5."""
    try:
        import_module("h5py")
        return import_module("minari")
    except ImportError as error:
        raise MissingExtraError("Reading and writing Minari datasets", "minari") from error


def path_of(minari: Any, dataset_id: str) -> Path:
    """Where a dataset of that name belongs; `UsageError` where it is no name, or one without a version."""
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{dataset_id!r} is no name of a Minari dataset; expected letters, digits, - and _, and a version, e.g. "
            f"town/expert-v0."
        ) from error
    try:
        return Path(minari.storage.get_dataset_path(dataset_id))
    except OSError as error:
        raise StorageError(error.filename, error) from error


def load_dataset(dataset_id: str) -> Any:
    """A dataset of this machine, opened; `UsageError` where there is none, or Minari refuses it."""
    minari = load_minari()
    path_of(minari, dataset_id)
    try:
        return minari.load_dataset(dataset_id)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no Minari dataset {dataset_id!r} on this machine. Known: {_known(minari)}. Get one with: "
            f"minari download {dataset_id}"
        ) from error
    except (ValueError, TypeError, KeyError, OSError, AssertionError) as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise UsageError(f"Minari does not load {dataset_id!r}: {why}.") from error


def _known(minari: Any) -> str:
    """The datasets on this machine; a folder among them whose name has no version keeps Minari from listing any."""
    try:
        return ", ".join(sorted(minari.list_local_datasets())) or "none"
    except TypeError:
        return "Minari cannot list them"


def add_namespace(dataset_id: str) -> None:
    """Make the namespace of a dataset known to Minari, where it is new."""
    namespaces = import_module("minari.namespace")
    name = dataset_id.rpartition("/")[0]
    if name and name not in namespaces.list_local_namespaces():
        namespaces.create_namespace(name)
