"""The memory in which several processes keep what their environments show and are told to do."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.envs.buffers import Buffers
from townlet_train.envs.protocol import EnvSpec

LINE = 64  # bytes of a cache line; no two arrays share one


@dataclass(frozen=True)
class Shared:
    """The arrays of all environments; every process that maps the same file sees the same numbers."""

    buffers: Buffers
    actions: NDArray[Any]

    @classmethod
    def map(cls, file: int, spec: EnvSpec, n_envs: int) -> Shared:
        """The arrays as views of an open file, given by its descriptor; made as long as they need."""
        if os.fstat(file).st_size == 0:
            os.truncate(file, _size(spec, n_envs))
        memory, end = mmap.mmap(file, 0), 0

        def zeros(shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
            nonlocal end
            count, start = int(np.prod(shape)), end
            end += -(-count * np.dtype(dtype).itemsize // LINE) * LINE
            return np.frombuffer(memory, dtype, count, start).reshape(shape)

        buffers = Buffers.allocate(n_envs, spec, zeros)
        kind = np.float32 if spec.action_low else np.int64
        return cls(buffers, zeros((n_envs, 1, *spec.action_shape), kind))


def open_memory() -> int:
    """The descriptor of a new file that lies in memory where that can be had, and has no name."""
    if sys.platform == "linux":
        return os.memfd_create("townlet-train")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _size(spec: EnvSpec, n_envs: int) -> int:
    """Bytes that suffice."""
    arrays: list[NDArray[Any]] = [*vars(Buffers.allocate(n_envs, spec)).values()]
    actions = 8 * n_envs * max(1, len(spec.action_low))
    return sum(array.nbytes + LINE for array in arrays) + actions + LINE
