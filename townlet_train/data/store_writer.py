"""The large store being written: plain appends to one `.npy` file per array, the manifest last."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.episodes import EpisodeClock, EpisodeSpan
from townlet_train.data.manifest import SUFFIX, encode_manifest
from townlet_train.data.memmap import FINAL_FEATURES, stored_arrays
from townlet_train.data.plan import CapturePlan
from townlet_train.errors import DataError

Array = NDArray[Any]

WRITE_BUFFER = 1 << 20


class ArrayWriter:
    """One `.npy` file, appended to tick by tick; its length is fixed when it is opened."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._checksum = 0
        self._ticks = 0
        self._stream: BinaryIO = path.open("wb", buffering=WRITE_BUFFER)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def append(self, tick: Array) -> None:
        """Write one tick, shape `shape[1:]`."""
        if tick.shape != self.shape[1:] or tick.dtype != self.dtype:
            raise DataError(
                f"A tick of {self.path.name} is {tick.dtype} {tick.shape}; expected {self.dtype} {self.shape[1:]}."
            )
        content = np.ascontiguousarray(tick).data.cast("B") if tick.size else b""
        self._stream.write(content)
        self._checksum = zlib.crc32(content, self._checksum)
        self._ticks += 1

    def finish(self) -> dict[str, Any]:
        """Complete the file; returns what the manifest says about it."""
        self._stream.close()
        if self._ticks != self.shape[0]:
            raise DataError(f"{self.path.name} was opened for {self.shape[0]} ticks and got {self._ticks}.")
        return {
            "file": self.path.name,
            "dtype": self.dtype.str,
            "shape": list(self.shape),
            "bytes": self.path.stat().st_size,
            "crc32": f"{self._checksum:08x}",
        }

    def close(self) -> None:
        """Let go of the file, finished or not."""
        self._stream.close()


class StoreWriter:
    """Appends a capture to a directory, tick by tick; `finish` writes the manifest last.

    Memory grows with the episodes, of each of which it holds what was seen last, and not with the frames.
    """

    def __init__(self, directory: Path, plan: CapturePlan) -> None:
        self._directory, self._prefix = directory, plan.prefix
        self._clock = EpisodeClock(plan.seeds)
        self._final: dict[tuple[int, int], Array] = {}  # by environment and number of its episode
        head = (plan.n_steps, plan.n_envs, plan.n_agents)
        self._arrays = {
            name: ArrayWriter(directory / f"{name}.npy", (*head, *tail), dtype)
            for name, (tail, dtype) in stored_arrays(plan.layout, with_maps=plan.with_maps).items()
        }

    @property
    def episodes(self) -> list[EpisodeSpan]:
        """Every episode so far."""
        return self._clock.spans()

    def append_decision(self, *, features: Array, maps: Array, action_mask: Array, actions: Array) -> None:
        """What every agent saw and did, before the step; (n_envs, n_agents, ...)."""
        self._arrays["features"].append(features)
        self._arrays["actions"].append(actions)
        for name, array in (("action_mask", action_mask), ("maps", maps)):
            if name in self._arrays:
                self._arrays[name].append(array)

    def append_outcome(
        self, *, rewards: Array, terminated: Array, truncated: Array, final_features: Mapping[int, Array]
    ) -> None:
        """What the step brought; (n_envs, n_agents).

        `final_features` are what was seen after it, (n_agents, n_features) by environment whose episode it ended.
        """
        self._arrays["rewards"].append(rewards)
        self._arrays["terminated"].append(terminated)
        self._arrays["truncated"].append(truncated)
        for env, seen in final_features.items():
            self._final[env, self._clock.current(env).index] = seen.copy()
        self._clock.advance(terminated, truncated)

    def finish(self, metadata: Mapping[str, Any]) -> Path:
        """Complete the arrays and write the manifest; returns its path."""
        body = {
            "arrays": {name: writer.finish() for name, writer in self._arrays.items()},
            "episodes": [asdict(episode) for episode in self.episodes],
            **write_final_features(self._directory, self.episodes, self._final),
        }
        path = self._directory / f"{self._prefix}{SUFFIX}"
        path.write_bytes(encode_manifest(metadata, body))
        return path

    def close(self) -> None:
        """Let go of the files, finished or not."""
        for writer in self._arrays.values():
            writer.close()


def write_final_features(
    directory: Path, episodes: Sequence[EpisodeSpan], found: Mapping[tuple[int, int], Array]
) -> dict[str, Any]:
    """Write what was seen last, (n_agents, n_features) by environment and number of the episode.

    Returns what the manifest says about it: nothing where nothing was found.
    """
    numbers = [number for number, span in enumerate(episodes) if (span.env, span.index) in found]
    if not numbers:
        return {}
    array = np.stack([found[episodes[number].env, episodes[number].index] for number in numbers])
    content = io.BytesIO()
    np.lib.format.write_array(content, array.astype("<f4"), version=(1, 0), allow_pickle=False)
    path = directory / f"{FINAL_FEATURES}.npy"
    path.write_bytes(content.getbuffer())
    row = {
        "file": path.name,
        "dtype": "<f4",
        "shape": list(array.shape),
        "bytes": path.stat().st_size,
        "crc32": f"{zlib.crc32(array.astype('<f4').tobytes()):08x}",
    }
    return {FINAL_FEATURES: row | {"episodes": numbers}}


def store_bytes(plan: CapturePlan) -> int:
    """What a capture takes on disk, but for headers and manifest."""
    arrays = stored_arrays(plan.layout, with_maps=plan.with_maps).values()
    return plan.n_frames * sum(math.prod(shape) * dtype.itemsize for shape, dtype in arrays)
