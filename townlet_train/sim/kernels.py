"""How the town's rules are compiled: once per version of their source, then read from the user's cache.

numba notices a change in the file of the function it caches, not in the files of the functions that one calls. So the
cache lives in a folder named after the hash of all our kernel sources: a stale kernel cannot be picked up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import platformdirs

from townlet_train.files import write_json

logger = logging.getLogger(__name__)

Record = Any  # a numba record; mypy cannot see its fields
COMPLETE = "complete.json"  # the compiled files and their sizes, written when all are there
UNUSED_FOR = 30 * 86_400  # seconds after which compiled kernels of another version are thrown away
Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """`numba.njit` that keeps the compiled code in our own cache folder and releases the GIL."""
    with _our_cache():
        compiled = numba.njit(cache=cache_is_writable(), nogil=True)(function)
    return cast("Function", compiled)


@cache
def cache_folder() -> Path:
    """Where the compiled kernels of this version at this place are kept; numba knows a file by its path."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256(f"{numba.__version__} {package}".encode())
    for source in (*sorted((package / "sim").glob("*.py")), package / "envs" / "town.py"):
        digest.update(source.read_bytes())
    return platformdirs.user_cache_path("townlet-train") / f"kernels-{digest.hexdigest()[:16]}"


@cache
def cache_is_writable() -> bool:
    """Whether compiled kernels can be kept. Elsewhere numba would keep them where stale ones could be picked up."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_folder()):
            return True
    except OSError:
        return False


def kernels_are_compiled() -> bool:
    """Whether an earlier process compiled every kernel of this version, and all of it is still there."""
    try:
        kept = json.loads((cache_folder() / COMPLETE).read_text(encoding="utf-8"))
        return all((cache_folder() / name).stat().st_size >= size for name, size in kept.items())
    except (OSError, ValueError, AttributeError):
        return False


@cache
def compile_once(compile_all: Callable[[], None]) -> None:
    """Run `compile_all` unless an earlier process did, telling the user why this takes long.

    What is left of a cache that was damaged or never completed is thrown away first.
    """
    if kernels_are_compiled():
        with suppress(OSError):
            (cache_folder() / COMPLETE).touch()  # tells `prune` that somebody uses them
        return
    for stale in cache_folder().rglob("*.nb[ci]"):
        stale.unlink(missing_ok=True)
    logger.info("Compiling the town's rules for this machine, once; it takes up to a minute.")
    start = time.perf_counter()
    compile_all()
    seconds = time.perf_counter() - start
    if cache_is_writable():
        kept = {
            str(path.relative_to(cache_folder())): path.stat().st_size
            for path in cache_folder().rglob("*.nb[ci]")
        }
        write_json(cache_folder() / COMPLETE, kept)
        prune(cache_folder(), time.time() - UNUSED_FOR)
        logger.info("Compiled in %.0f s and kept in %s.", seconds, cache_folder())
    else:
        logger.warning(
            "Compiled in %.0f s, again at every start: %s cannot be written to.", seconds, cache_folder()
        )


def prune(own: Path, used_since: float) -> None:
    """Remove kernels beside `own`, of other versions or places, that nobody used since then (epoch seconds)."""
    for other in own.parent.glob("kernels-*"):
        with suppress(OSError):
            mark = other / COMPLETE
            if other != own and (mark if mark.exists() else other).stat().st_mtime < used_since:
                shutil.rmtree(other, ignore_errors=True)


@contextmanager
def _our_cache() -> Iterator[None]:
    """numba's cache folder is process-wide; set it only while a kernel of ours is declared."""
    config: Any = numba.config  # its attributes are made at run time
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = before
