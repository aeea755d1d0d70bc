"""The store for large captures: a directory of plain time-first `.npy` arrays and a manifest.

Axes are `(n_steps, n_envs, n_agents, ...)`, so a capture appends one tick after the other with plain writes, and a
reader streams blocks of ticks into buffers it reuses: memory does not grow with the capture on either side. (The arrays
can be memory-mapped by any NumPy; our own reader does not, because mapped pages count as the process's memory.)
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block
from townlet_train.data.episodes import EpisodeSpan
from townlet_train.data.layout import Layout
from townlet_train.data.manifest import FORMAT, FORMAT_VERSION
from townlet_train.data.schema import ArrayRow, StoreManifest, check_document, check_format
from townlet_train.errors import DataError

Array = NDArray[Any]

READ_BUFFER = 1 << 20
FINAL_FEATURES = "final_features"


def stored_arrays(layout: Layout, *, with_maps: bool) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Name, shape per agent and dtype of every array of a store."""
    arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "features": ((len(layout.feature_names),), np.dtype("<f4")),
        "action_mask": ((len(layout.action_names),), np.dtype("|b1")),
        "actions": (layout.action_shape, np.dtype("<f4" if layout.action_low else "<i8")),
        "rewards": ((), np.dtype("<f4")),
        "terminated": ((), np.dtype("|b1")),
        "truncated": ((), np.dtype("|b1")),
    }
    if layout.action_low:
        del arrays["action_mask"]
    return arrays | ({"maps": (layout.map_shape, np.dtype("|u1"))} if with_maps else {})


class Store:
    """A capture made by `store_writer`, read in blocks of ticks.

    Opening checks the manifest against every file's size and header. Raises `DataError` for what does not fit.
    """

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self.path = path
        metadata = document.get("metadata")
        if isinstance(metadata, dict):
            check_format(metadata, FORMAT, FORMAT_VERSION, path)
        manifest = check_document(StoreManifest, document, f"Manifest {path}")
        self.metadata: Mapping[str, Any] = document["metadata"]
        self.capture = about = manifest.metadata
        self.layout = about.layout
        self.shape = (about.ticks, about.n_envs, about.n_agents)
        self.episodes = tuple(EpisodeSpan(**row.model_dump()) for row in manifest.episodes)
        self._selected = _selection(path, manifest.selected, len(self.episodes))
        self.records = manifest.arrays
        self._files = {name: _array_file(path, name, row) for name, row in self.records.items()}
        self.final_record = manifest.final_features
        self._final = (
            None if self.final_record is None else _array_file(path, FINAL_FEATURES, self.final_record)
        )
        self._check_shapes()

    @property
    def n_frames(self) -> int:
        """Agent-ticks of the episodes this manifest selects."""
        chosen = (episode for number, episode in enumerate(self.episodes) if self._selected[number])
        return sum(episode.stop - episode.start for episode in chosen) * int(self.shape[2])

    @property
    def n_episodes(self) -> int:
        """Episodes this manifest selects."""
        return int(self._selected.sum())

    @property
    def action_names(self) -> tuple[str, ...]:
        """The names of the actions, in the order of their ids."""
        return self.layout.action_names

    @property
    def seeds(self) -> tuple[int, ...]:
        """What the environments of the selected episodes were reset with, sorted, each once."""
        return tuple(sorted({self.episodes[number].seed for number in np.flatnonzero(self._selected)}))

    def blocks(
        self, *, n_frames: int = 1 << 15, with_maps: bool = True, rng: np.random.Generator | None = None
    ) -> Iterator[Block]:
        """The whole store in blocks of about `n_frames`, in order of time, or in random order with `rng`.

        A block's arrays are views of buffers that the next block overwrites.
        """
        n_envs, n_agents = self.shape[1:]
        lives: NDArray[np.int64] | None = np.arange(n_envs * n_agents).reshape(n_envs, n_agents)
        if rng is not None:
            lives = None  # out of order, nobody knows how many lives went before
        spans = self._spans()
        for start, ticks in self.ticks(n_frames=n_frames, with_maps=with_maps, rng=rng):
            episode = _episode_numbers(spans, start, start + len(ticks["actions"]), n_agents)
            block = self._block(ticks, episode, lives)
            if len(block.actions):
                yield block

    @property
    def selected_episodes(self) -> list[EpisodeSpan]:
        """The episodes that are part of the dataset."""
        return [self.episodes[number] for number in np.flatnonzero(self._selected)]

    @property
    def whole(self) -> bool:
        """Whether the manifest selects every episode of its arrays."""
        return bool(self._selected.all())

    def ticks(
        self, *, n_frames: int = 1 << 15, with_maps: bool = True, rng: np.random.Generator | None = None
    ) -> Generator[tuple[int, dict[str, Array]]]:
        """Consecutive ticks of about `n_frames` at a time, selected or not: the first one's number, and arrays
        (n_ticks, n_envs, n_agents, ...) that the next ones overwrite. In random order with `rng`.
        """
        n_steps, n_envs, n_agents = self.shape
        width = max(1, n_frames // (n_envs * n_agents))
        starts = np.arange(0, n_steps, width)
        if rng is not None:
            rng.shuffle(starts)
        names = [name for name in self._files if with_maps or name != "maps"]
        buffers = {name: self._files[name].buffer(width) for name in names}
        streams = {name: self._files[name].open() for name in names}
        try:
            for start in starts.tolist():
                stop = min(start + width, n_steps)
                yield (
                    start,
                    {
                        name: self._files[name].read(streams[name], buffers[name], start, stop)
                        for name in names
                    },
                )
        finally:
            for stream in streams.values():
                stream.close()

    def final_features(self) -> dict[int, Array]:
        """What was seen last, (n_agents, n_features), by number of the episode, of those that it was recorded of."""
        if self._final is None or self.final_record is None:
            return {}
        with self._final.open() as stream:
            n_rows = self._final.shape[0]
            rows = self._final.read(stream, self._final.buffer(n_rows), 0, n_rows)
        return dict(zip(self.final_record.episodes, rows, strict=True))

    def _block(
        self, ticks: Mapping[str, Array], episode: NDArray[np.int64], lives: NDArray[np.int64] | None
    ) -> Block:
        """Frames of consecutive ticks, flattened; `lives` is advanced past them."""
        ended = ticks["terminated"] | ticks["truncated"]
        life = np.full(ended.shape, -1, np.int64) if lives is None else _life_numbers(ended, lives)
        flat = {name: array.reshape(-1, *array.shape[3:]) for name, array in ticks.items()}
        n_actions = len(self.layout.action_names)
        if n_actions and not 0 <= flat["actions"].min() <= flat["actions"].max() < n_actions:
            raise DataError(f"{self._files['actions'].path} holds action ids outside 0..{n_actions - 1}.")
        block = Block(
            layout=self.layout,
            features=flat["features"],
            maps=flat.get("maps"),
            actions=flat["actions"],
            action_mask=flat.get("action_mask"),
            rewards=flat["rewards"],
            terminated=flat["terminated"],
            truncated=flat["truncated"],
            episode=episode.reshape(-1),
            life=life.reshape(-1),
            source=str(self.path.parent),
        )
        return block if self._selected.all() else block.rows(self._selected[block.episode])

    def check_sums(self) -> Iterator[str]:
        """One sentence for each array whose bytes are not those that were written."""
        files = [(self._files[name], row) for name, row in self.records.items()]
        if self._final is not None and self.final_record is not None:
            files.append((self._final, self.final_record))
        for file, row in files:
            if file.crc32() != row.crc32:
                yield f"{file.path}: the bytes are not those that were captured (crc32 differs)."

    def _spans(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each environment the starts of its episodes and their numbers."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.shape[1])]
        for number, episode in enumerate(self.episodes):
            found[episode.env].append((episode.start, number))
        return [
            (
                np.array([start for start, _ in rows], np.int64),
                np.array([number for _, number in rows], np.int64),
            )
            for rows in found
        ]

    def _check_shapes(self) -> None:
        known = stored_arrays(self.layout, with_maps=True)
        missing = sorted(set(known) - {"maps"} - set(self._files))
        if missing:
            raise DataError(f"Manifest {self.path} lacks the arrays {', '.join(missing)}. Capture it again.")
        foreign = sorted(set(self._files) - set(known))
        if foreign:
            raise DataError(f"Manifest {self.path} names arrays no store has: {', '.join(foreign)}.")
        for name, file in self._files.items():
            tail, dtype = known[name]
            if file.shape != (*self.shape, *tail) or file.dtype != dtype:
                raise DataError(
                    f"{file.path} holds {file.dtype} {file.shape}; expected {dtype} {(*self.shape, *tail)}."
                )
        self._check_episodes()
        if self._final is not None and self.final_record is not None:
            numbers = self.final_record.episodes
            expected = (len(numbers), self.shape[2], len(self.layout.feature_names))
            if self._final.shape != expected or self._final.dtype != np.dtype("<f4"):
                raise DataError(
                    f"{self._final.path} holds {self._final.dtype} {self._final.shape}; expected float32 {expected}."
                )
            if max(numbers, default=0) >= len(self.episodes):
                raise DataError(
                    f"Manifest {self.path}: `{FINAL_FEATURES}` names episode {max(numbers)} of {len(self.episodes)}, "
                    f"counted from 0."
                )

    def _check_episodes(self) -> None:
        covered = np.zeros(self.shape[1], np.int64)
        for episode in self.episodes:
            if not (
                0 <= episode.env < self.shape[1] and covered[episode.env] == episode.start < episode.stop
            ):
                raise DataError(
                    f"Manifest {self.path}: the episodes of environment {episode.env} do not follow on."
                )
            covered[episode.env] = episode.stop
        if not (covered == self.shape[0]).all():
            raise DataError(f"Manifest {self.path}: the episodes do not cover all {self.shape[0]} ticks.")


@dataclass(frozen=True)
class _ArrayFile:
    """One array of a store on disk: where its ticks begin and how large one is."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def tick_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def buffer(self, n_steps: int) -> Array:
        return np.empty((n_steps, *self.shape[1:]), self.dtype)

    def open(self) -> BinaryIO:
        return self.path.open("rb", buffering=0)

    def read(self, stream: BinaryIO, buffer: Array, start: int, stop: int) -> Array:
        """Ticks [start, stop) into the head of `buffer`."""
        target = buffer[: stop - start]
        stream.seek(self.offset + start * self.tick_bytes)
        content = target.reshape(-1).view(np.uint8)
        view = content.data
        filled = 0
        while filled < len(view):
            count = stream.readinto(view[filled:])  # type: ignore[attr-defined]  # raw files have it, BinaryIO hides it
            if not count:
                raise DataError(f"{self.path} ends before tick {stop}; the file was cut while it was read.")
            filled += count
        if self.dtype == np.bool_ and filled and content.max() > 1:
            raise DataError(f"{self.path} holds bytes that are neither True nor False.")
        return target

    def crc32(self) -> str:
        """Checksum of the array's bytes, read in constant memory."""
        checksum = 0
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            while chunk := stream.read(READ_BUFFER):
                checksum = zlib.crc32(chunk, checksum)
        return f"{checksum:08x}"


def _array_file(manifest: Path, name: str, row: ArrayRow) -> _ArrayFile:
    """The file of one array, its header and its size compared with the manifest's row."""
    path = manifest.parent / row.file
    if not path.is_file():
        raise DataError(f"{manifest}: array {name!r} is missing, {path} does not exist. Capture it again.")
    size = path.stat().st_size
    if size != row.bytes:
        raise DataError(f"{path} has {size} bytes; the manifest says {row.bytes}. Capture or copy it again.")
    try:
        with path.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            offset = stream.tell()
    except Exception as error:  # NumPy lets the errors of its header's parser through
        raise DataError(
            f"{path} does not begin with the header of an npy array. Capture it again."
        ) from error
    if fortran or dtype.hasobject or tuple(shape) != row.shape or dtype.str != row.dtype:
        raise DataError(f"{path} holds {dtype} {shape}; the manifest says {row.dtype} {row.shape}.")
    return _ArrayFile(path, tuple(shape), dtype, offset)


def _selection(path: Path, numbers: tuple[int, ...] | None, n_episodes: int) -> NDArray[np.bool_]:
    """(n_episodes,): True for the episodes a manifest selects; all of them when it does not choose."""
    if numbers is None:
        return np.ones(n_episodes, np.bool_)
    if max(numbers) >= n_episodes:
        raise DataError(
            f"Manifest {path}: `selected` names episode {max(numbers)} of {n_episodes}, counted from 0."
        )
    selected = np.zeros(n_episodes, np.bool_)
    selected[list(numbers)] = True
    return selected


def _episode_numbers(
    spans: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], start: int, stop: int, n_agents: int
) -> NDArray[np.int64]:
    """(n_steps, n_envs, n_agents): the number of the episode each frame is part of."""
    ticks = np.arange(start, stop)
    columns = [numbers[np.searchsorted(starts, ticks, side="right") - 1] for starts, numbers in spans]
    return np.repeat(np.stack(columns, axis=1)[:, :, None], n_agents, axis=2)


def _life_numbers(ended: NDArray[np.bool_], lives: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n_steps, n_envs, n_agents): a number per life, unique in the store; `lives` is moved on to the next block's."""
    n_slots = lives.size
    before: NDArray[np.int64] = np.cumsum(ended, axis=0) - ended
    numbers: NDArray[np.int64] = lives + before * n_slots
    lives += ended.sum(axis=0) * n_slots
    return numbers
