"""A recording read back, whatever it is stored as: a set of samples or a large store, as blocks of frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block
from townlet_train.data.layout import check_features
from townlet_train.data.manifest import Entry, Manifest, find_manifest, load_document, parse_manifest
from townlet_train.data.memmap import Store
from townlet_train.data.storage import EpisodeKey, Sample, load_sample
from townlet_train.data.trajectory import Trajectory
from townlet_train.errors import DataError
from townlet_train.files import PARTIAL


class Replay(Protocol):
    """A recording that can be read as often as needed, in memory that does not grow with it."""

    path: Path
    metadata: Mapping[str, Any]

    def blocks(
        self, *, n_frames: int = ..., with_maps: bool = ..., rng: np.random.Generator | None = ...
    ) -> Iterator[Block]:
        """Every frame once, in blocks: in order, or in a random order of blocks with `rng`."""
        ...


class SampleReplay:
    """The samples of a manifest, or one sample; each is read when its turn comes, and checked."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.path = manifest.path
        self.metadata = manifest.metadata

    def samples(self, rng: np.random.Generator | None = None) -> Iterator[Sample]:
        """Every sample, in the manifest's order or in a random one."""
        entries = self.manifest.entries
        order = np.arange(len(entries)) if rng is None else rng.permutation(len(entries))
        for position in order.tolist():
            yield load_sample(entries[position].sample, entries[position].metadata)

    def blocks(
        self, *, n_frames: int = 1 << 15, with_maps: bool = True, rng: np.random.Generator | None = None
    ) -> Iterator[Block]:
        """One block per sample, or several for a sample longer than `n_frames`.

        Raises `DataError` naming both files when two samples have different feature layouts.
        """
        first: Sample | None = None
        episodes = _Numbering()
        n_lives = 0
        for sample in self.samples(rng):
            if first is None:
                first = sample
            check_same_features(first, sample)
            episode = episodes.number(sample)
            life = n_lives + lives_of(sample.trajectory)
            n_lives = int(life[-1]) + 1
            for start in range(0, sample.trajectory.n_steps, n_frames):
                yield _block(sample, slice(start, start + n_frames), episode, life, with_maps)


class _Numbering:
    """Numbers for episodes: the same for samples of one town-episode, a new one for a sample that does not say."""

    def __init__(self) -> None:
        self._known: dict[EpisodeKey, int] = {}
        self._count = 0

    def number(self, sample: Sample) -> int:
        if sample.episode is not None and sample.episode in self._known:
            return self._known[sample.episode]
        if sample.episode is not None:
            self._known[sample.episode] = self._count
        self._count += 1
        return self._count - 1


def open_replay(path: Path) -> Store | SampleReplay:
    """Open a manifest, a capture directory, or one `.npz` sample.

    Raises `DataError` when there is nothing to read, in words.
    """
    if any(part.endswith(PARTIAL) for part in path.parts):
        raise DataError(f"{path} was left by a capture that was killed. Delete it and capture again.")
    if path.suffix == ".npz":
        entry = Entry(1, path, path.with_suffix(".json"))
        return SampleReplay(Manifest(path, {}, (entry,)))
    manifest = find_manifest(path) if path.is_dir() else path
    document = load_document(manifest)
    if isinstance(document, dict) and "arrays" in document:
        return Store(manifest, document)
    return SampleReplay(parse_manifest(manifest, document))


def check_same_features(first: Sample, other: Sample) -> None:
    """Refuse to mix feature layouts in one dataset, naming both files."""
    if first.layout.feature_names != other.layout.feature_names:
        check_features(
            other.layout.feature_names, first.layout.feature_names, f"{other.path} (beside {first.path.name})"
        )


def lives_of(trajectory: Trajectory) -> NDArray[np.int64]:
    """(n_steps,): 0 for the first life in a trajectory, 1 for the one after its first end, and so on."""
    ended = trajectory.ended
    numbers: NDArray[np.int64] = np.cumsum(ended, dtype=np.int64) - ended
    return numbers


def _block(sample: Sample, part: slice, episode: int, life: NDArray[np.int64], with_maps: bool) -> Block:
    trajectory = sample.trajectory
    actions = trajectory.actions[part]
    return Block(
        layout=sample.layout,
        features=trajectory.features[part],
        maps=trajectory.maps[part] if with_maps and trajectory.maps is not None else None,
        actions=actions,
        action_mask=trajectory.action_mask[part] if trajectory.action_mask is not None else None,
        rewards=trajectory.rewards[part],
        terminated=trajectory.terminated[part],
        truncated=trajectory.truncated[part],
        episode=np.full(len(actions), episode, np.int64),
        life=life[part],
        source=str(sample.path),
    )
