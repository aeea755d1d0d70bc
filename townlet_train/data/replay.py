"""A recording read back, whatever it is stored as: a set of samples or a large store, as blocks of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block
from townlet_train.data.layout import check_actions, check_features
from townlet_train.data.manifest import Entry, Manifest, find_manifest, load_document, parse_manifest
from townlet_train.data.memmap import Store
from townlet_train.data.schema import CaptureMetadata, EpisodeKey
from townlet_train.data.storage import Sample, SampleHeader, load_header, load_sample
from townlet_train.errors import DataError
from townlet_train.files import PARTIAL


class Replay(Protocol):
    """A recording that can be read as often as needed, in memory that does not grow with it."""

    path: Path
    metadata: Mapping[str, Any]

    @property
    def capture(self) -> CaptureMetadata | None:
        """What its manifest says of the capture it is of, when that is one of ours."""
        ...

    @property
    def n_frames(self) -> int:
        """Agent-ticks it is said to hold; 0 when nothing says."""
        ...

    @property
    def action_names(self) -> tuple[str, ...]:
        """Every action its parts name, in the order of first sight."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """What the environments of its episodes were reset with, sorted, each once; empty when nothing says."""
        ...

    def check_sums(self) -> Iterator[str]:
        """One sentence for each file whose bytes are not those that were captured, where the manifest says."""
        ...

    def blocks(
        self, *, n_frames: int = ..., with_maps: bool = ..., rng: np.random.Generator | None = ...
    ) -> Iterator[Block]:
        """Every frame once, in blocks: in order, or in a random order of blocks with `rng`."""
        ...


class LifeHeader(NamedTuple):
    """What is held of a sample while its recording is read: small, for there may be as many as there are lives."""

    action_names: tuple[str, ...]
    env_id: str | None
    timesteps: int | None
    episode: EpisodeKey | None
    start_tick: int | None  # tick of its episode at which it begins


class SampleReplay:
    """The samples of a manifest, or one sample; each is read when its turn comes, and checked."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.path = manifest.path
        self.metadata = manifest.metadata
        self.capture = manifest.capture

    @cached_property
    def headers(self) -> tuple[LifeHeader, ...]:
        """What is held of every sample's header; raises `DataError` for the first that is refused."""
        known: dict[Any, Any] = {}  # what many of them say alike is there once
        headers = (load_header(entry.sample, entry.metadata) for entry in self.manifest.entries)
        return tuple(
            LifeHeader(
                action_names=known.setdefault(header.action_names, header.action_names),
                env_id=known.setdefault(header.facts.env_id, header.facts.env_id),
                timesteps=header.facts.timesteps,
                episode=known.setdefault(header.facts.episode, header.facts.episode),
                start_tick=_start_tick(header),
            )
            for header in headers
        )

    @property
    def n_frames(self) -> int:
        return sum(header.timesteps or 0 for header in self.headers)

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for header in self.headers for name in header.action_names))

    @property
    def seeds(self) -> tuple[int, ...]:
        keys = [header.episode for header in self.headers]
        return tuple(sorted({key.seed for key in keys if key is not None and key.seed is not None}))

    @property
    def n_episodes(self) -> int:
        """Town-episodes its samples say they are part of, and samples that do not say."""
        keys = [
            (entry.sample.parent, header.episode)
            for entry, header in zip(self.manifest.entries, self.headers, strict=True)
        ]
        return len({key for key in keys if key[1] is not None}) + self.unplaced

    @property
    def unplaced(self) -> int:
        """Samples that do not say which town-episode they are part of."""
        return sum(header.episode is None for header in self.headers)

    def check_sums(self) -> Iterator[str]:
        for entry in self.manifest.entries:
            yield from entry.check_sums()

    def samples(
        self, rng: np.random.Generator | None = None, refuse: Callable[[Entry, DataError], None] | None = None
    ) -> Iterator[Sample]:
        """Every sample, in the manifest's order or in a random one.

        A sample that is refused, or whose features are not those of the first, raises `DataError`; with `refuse`, it
        is handed the error and the sample is left out.
        """
        entries = self.manifest.entries
        order = np.arange(len(entries)) if rng is None else rng.permutation(len(entries))
        first: Sample | None = None
        for position in order.tolist():
            try:
                sample = load_sample(entries[position].sample, entries[position].metadata)
                first = first or sample
                check_same_features(first, sample)
            except DataError as error:
                if refuse is None:
                    raise
                refuse(entries[position], error)
                continue
            yield sample

    def blocks(
        self,
        *,
        n_frames: int = 1 << 15,
        with_maps: bool = True,
        rng: np.random.Generator | None = None,
        visit: Callable[[Sample], None] | None = None,
    ) -> Iterator[Block]:
        """One block per sample, or several for a sample longer than `n_frames`; `visit` sees each sample first."""
        episodes = _Numbering()
        n_lives = 0
        for sample in self.samples(rng):
            if visit is not None:
                visit(sample)
            whole = block_of(sample, episode=episodes.number(sample), first_life=n_lives, with_maps=with_maps)
            n_lives = int(whole.life[-1]) + 1
            for start in range(0, len(whole.actions), n_frames):
                yield whole.rows(slice(start, start + n_frames))


def _start_tick(header: SampleHeader) -> int | None:
    episode = header.document.get("episode")
    start = episode.get("start_tick") if isinstance(episode, dict) else None
    return start if isinstance(start, int) and start >= 0 else None


class _Numbering:
    """Numbers for episodes: the same for samples of one town-episode, a new one for a sample that does not say.

    A capture is a directory, so equal keys in two directories are two episodes.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, EpisodeKey], int] = {}
        self._count = 0

    def number(self, sample: Sample) -> int:
        key = None if sample.episode is None else (sample.path.parent, sample.episode)
        if key is not None and key in self._known:
            return self._known[key]
        if key is not None:
            self._known[key] = self._count
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
        return SampleReplay(Manifest(path, {}, None, (entry,)))
    manifest = find_manifest(path) if path.is_dir() else path
    document = load_document(manifest)
    if isinstance(document, dict) and "arrays" in document:
        return Store(manifest, document)
    return SampleReplay(parse_manifest(manifest, document))


def check_same_features(first: Sample, other: Sample) -> None:
    """Refuse to mix layouts of features, or vectors and other actions, in one dataset, naming both files."""
    where = f"{other.path} (beside {first.path.name})"
    check_actions(other.layout, first.layout, where)
    if first.layout.feature_names != other.layout.feature_names:
        check_features(other.layout.feature_names, first.layout.feature_names, where)


def block_of(sample: Sample, *, episode: int = 0, first_life: int = 0, with_maps: bool = True) -> Block:
    """A sample's frames; its lives are numbered from `first_life`, a new one after each end."""
    trajectory = sample.trajectory
    life: NDArray[np.int64] = np.cumsum(trajectory.ended, dtype=np.int64) - trajectory.ended + first_life
    return Block(
        layout=sample.layout,
        features=trajectory.features,
        maps=trajectory.maps if with_maps else None,
        actions=trajectory.actions,
        action_mask=trajectory.action_mask,
        rewards=trajectory.rewards,
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        episode=np.full(trajectory.n_steps, episode, np.int64),
        life=life,
        source=str(sample.path),
    )
