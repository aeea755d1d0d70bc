"""Where a capture may land: a new directory, an empty one, or in place of an earlier capture; on a disk with room."""

from __future__ import annotations

import shutil
from pathlib import Path

from townlet_train.data.manifest import SUFFIX
from townlet_train.errors import DataError, UsageError
from townlet_train.files import PARTIAL


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse to write over anything but, when asked to, an earlier capture."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"--output {output} is a file; expected a directory to create.")
    content = list(output.iterdir())
    if content and not overwrite:
        raise UsageError(
            f"{output} already holds {len(content)} files. Choose another --output or pass --overwrite."
        )
    if content and not list(output.glob(f"*{SUFFIX}")):
        raise UsageError(
            f"{output} holds no capture, so --overwrite does not delete it. Choose another --output."
        )


def check_room(output: Path, n_bytes: int) -> None:
    """Refuse a capture that cannot fit on the disk, before the first tick."""
    parent = next(path for path in output.resolve().parents if path.exists())
    free = shutil.disk_usage(parent).free
    if n_bytes > free:
        raise DataError(
            f"The capture takes {n_bytes / 1e9:.1f} GB and {parent} has {free / 1e9:.1f} GB free. "
            f"Ask for fewer ticks or towns, or pass --no-maps."
        )


def leftovers(output: Path) -> list[Path]:
    """What captures of the same output left behind when they were killed."""
    return sorted(output.resolve().parent.glob(f"*.{output.name}.*{PARTIAL}"))
