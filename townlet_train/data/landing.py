"""Where a capture may land: a new directory, an empty one, or in place of an earlier capture; on a disk with room."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from townlet_train.data.manifest import SUFFIX, names_of_capture
from townlet_train.errors import DataError, UsageError
from townlet_train.files import PARTIAL, REPLACED, beside, make_folder, restore_replaced, storing

logger = logging.getLogger(__name__)


@contextmanager
def sole_writer(output: Path) -> Iterator[None]:
    """Nobody else captures to `output` meanwhile; what a killed capture had set aside there is put back first."""
    make_folder(output.absolute().parent)
    lock = FileLock(output.absolute().parent / f".{output.name}.lock")
    try:
        with storing(Path(lock.lock_file)):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"Another capture is writing to {output}. Wait for it or choose another --output."
        ) from error
    try:
        for put_back in restore_replaced(output):
            logger.warning("%s was set aside by a capture that was killed; it is %s again.", put_back, output)
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse to write over anything but, when asked to, an earlier capture and nothing beside it."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"--output {output} is a file; expected a directory to create.")
    content = sorted(output.iterdir())
    if content and not overwrite:
        raise UsageError(
            f"{output} already holds {len(content)} files. Choose another --output or pass --overwrite."
        )
    captured = set().union(*map(names_of_capture, output.glob(f"*{SUFFIX}")))
    if content and not captured:
        raise UsageError(
            f"{output} holds no capture, so --overwrite does not delete it. Choose another --output."
        )
    foreign = [path.name for path in content if path.name not in captured or not path.is_file()]
    if foreign:
        raise UsageError(
            f"{output} holds {foreign[0]}, which no capture wrote, so --overwrite does not delete it. "
            f"Move it elsewhere or choose another --output."
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


def leftovers(output: Path) -> Iterator[str]:
    """One sentence for each thing that captures of the same output left behind when they were killed."""
    for path in beside(output, PARTIAL):
        yield f"{path} was left by a capture that was killed; delete it."
    for path in beside(output, REPLACED):
        yield f"{path} is an earlier capture whose successor was killed after it landed; delete it."
