"""Demonstrations: flat frames to learn from, split by episode, in batches from memory or streamed from a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block
from townlet_train.data.columns import Columns
from townlet_train.data.layout import Layout, check_features, within_bounds
from townlet_train.data.replay import Replay, SampleReplay, open_replay
from townlet_train.data.trajectory import Actions, Maps
from townlet_train.errors import DataError

BLOCK_FRAMES = 1 << 15


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Every frame of a recording, with the observation and mask before the action."""

    features: NDArray[np.float32]  # (n_frames, n_features)
    maps: Maps | None  # (n_frames, channels, height, width); uint8 unless values are fractions
    actions: Actions  # (n_frames,): index of action_names; or vectors, (n_frames, n_dimensions)
    action_mask: NDArray[
        np.bool_
    ]  # (n_frames, n_actions); all True where there are no masks; no actions for vectors
    episode: NDArray[np.int64]  # (n_frames,): frames of one town-episode share a number
    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    map_channels: tuple[str, ...]  # empty when there are no maps
    seeds: tuple[int, ...]  # what the recorded environments were reset with; empty when the files do not say
    label: str
    warnings: tuple[str, ...] = ()
    action_low: tuple[float, ...] = ()  # of vectors; empty where actions are indices
    action_high: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def n_episodes(self) -> int:
        return len(np.unique(self.episode))


class FrameBatch(NamedTuple):
    """Some frames to learn from together."""

    features: NDArray[np.float32]  # (batch_size, n_features)
    maps: Maps | None  # (batch_size, channels, height, width)
    actions: Actions  # (batch_size,), or vectors (batch_size, n_dimensions)
    action_mask: NDArray[np.bool_]  # (batch_size, n_actions)


def load_demonstrations(
    path: Path,
    *,
    with_maps: bool = True,
    feature_names: Sequence[str] | None = None,
    action_names: Sequence[str] | None = None,
) -> Demonstrations:
    """Read a manifest, a capture directory or a sample into memory.

    Actions are numbered by name: by `action_names` when given, otherwise in the order of first sight; vectors have no
    names. Raises `DataError` when features are not those expected, when actions have no names, or when one is not
    among those expected.
    """
    replay = open_replay(path)
    for problem in replay.check_sums():
        raise DataError(f"{problem} Copy or capture it again.")
    names = tuple(action_names) if action_names is not None else replay.action_names
    try:
        layout, columns = _gather(replay, names, feature_names, with_maps=with_maps)
    except MemoryError as error:
        raise DataError(
            f"{path} holds {replay.n_frames} frames, which do not fit into memory. Split it or capture less."
        ) from error
    demonstrations = Demonstrations(
        features=columns["features"],
        maps=columns.get("maps"),
        actions=columns["actions"],
        action_mask=columns["action_mask"],
        episode=columns["episode"],
        feature_names=layout.feature_names,
        action_names=names,
        map_channels=layout.map_channels if columns.get("maps") is not None else (),
        seeds=replay.seeds,
        label=label_of(replay.path),
        warnings=tuple(doubts(replay)),
        action_low=layout.action_low,
        action_high=layout.action_high,
    )
    check_frames(demonstrations, names, str(path))
    return demonstrations


def check_frames(frames: Demonstrations | FrameBatch, action_names: Sequence[str], where: str) -> None:
    """Refuse features that are not finite and actions that their own mask forbids."""
    bad = int(np.count_nonzero(~np.isfinite(frames.features).all(axis=1)))
    if bad:
        raise DataError(
            f"{where}: {bad} frames have features that are NaN or infinite; expected finite numbers."
        )
    if not action_names:
        return
    legal = np.take_along_axis(frames.action_mask, frames.actions[:, None], axis=1)[:, 0]
    if not legal.all():
        first = int(np.argmin(legal))
        raise DataError(
            f"{where}: {np.count_nonzero(~legal)} actions are forbidden by the mask of their own frame, the first is "
            f"{action_names[frames.actions[first]]!r} in frame {first}. Capture it again."
        )


def _gather(
    replay: Replay, names: Sequence[str], feature_names: Sequence[str] | None, *, with_maps: bool
) -> tuple[Layout, Columns]:
    """Every frame of a recording, actions and masks numbered by `names`, and the layout of its first block."""
    columns = Columns(replay.n_frames)
    layout: Layout | None = None
    for block in replay.blocks(n_frames=BLOCK_FRAMES, with_maps=with_maps):
        if layout is None:
            layout = block.layout
            if feature_names is not None:
                check_features(layout.feature_names, feature_names, str(replay.path))
        frames = renumbered(block, names)
        rows: dict[str, NDArray[Any]] = {
            "features": frames.features,
            "actions": frames.actions,
            "action_mask": frames.action_mask,
            "episode": block.episode,
        }
        columns.append(rows if frames.maps is None else rows | {"maps": frames.maps}, block.source)
    if layout is None:
        raise DataError(f"{replay.path} holds no frames.")
    return layout, columns


def split_by_episode(
    demonstrations: Demonstrations, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of training and held-out frames; about `fraction` of the episodes, at least one, is held out.

    Frames of one episode are never on both sides. Raises `DataError` when there are fewer than two episodes.
    """
    if not 0 < fraction < 1:
        raise DataError(f"The held-out share is {fraction}; expected a number between 0 and 1.")
    held_out = choose_episodes(np.unique(demonstrations.episode), fraction, rng, demonstrations.label)
    is_held_out = np.isin(demonstrations.episode, held_out)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def choose_episodes(
    episodes: NDArray[np.int64], fraction: float, rng: np.random.Generator, label: str
) -> NDArray[np.int64]:
    """The episodes to hold out: a share of them, at least one, and never all."""
    if len(episodes) < 2:
        raise DataError(
            f"{label} holds {len(episodes)} episode; a held-out split takes whole episodes and needs at least 2."
            f" Capture more towns."
        )
    n_held_out = min(max(1, round(fraction * len(episodes))), len(episodes) - 1)
    return np.sort(rng.permutation(episodes)[:n_held_out])


def batches(
    demonstrations: Demonstrations,
    index: NDArray[np.int64],
    batch_size: int,
    *,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
) -> Iterator[FrameBatch]:
    """One epoch over the frames in `index`, each once: in order, or shuffled by `rng`."""
    check_batch_size(batch_size)
    order = index if rng is None else rng.permutation(index)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        if len(rows) == batch_size or not drop_last:
            yield FrameBatch(
                demonstrations.features[rows],
                None if demonstrations.maps is None else demonstrations.maps[rows],
                demonstrations.actions[rows],
                demonstrations.action_mask[rows],
            )


def stream_batches(
    replay: Replay,
    batch_size: int,
    action_names: Sequence[str],
    *,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
    with_maps: bool = True,
    block_frames: int = BLOCK_FRAMES,
) -> Iterator[FrameBatch]:
    """One epoch over a recording of any size, each frame once, holding one block (or sample) and one batch in memory.

    With `rng`, blocks come in random order and frames are shuffled within a block: an approximate shuffle, the price
    of constant memory.
    """
    check_batch_size(batch_size)
    rest: FrameBatch | None = None
    for block in replay.blocks(n_frames=block_frames, with_maps=with_maps, rng=rng):
        frames = renumbered(block, action_names)
        check_frames(frames, action_names, block.source)
        order = np.arange(len(block.actions)) if rng is None else rng.permutation(len(block.actions))
        taken = 0
        if rest is not None:
            taken = min(batch_size - len(rest.actions), len(order))
            rest = _joined(rest, _rows(frames, order[:taken]))
            if len(rest.actions) < batch_size:
                continue
            yield rest
            rest = None
        for start in range(taken, len(order), batch_size):
            batch = _rows(frames, order[start : start + batch_size])
            if len(batch.actions) < batch_size:
                rest = batch
            else:
                yield batch
    if rest is not None and not drop_last:
        yield rest


def check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise DataError(f"The batch size is {batch_size}; expected at least 1.")


def renumbered(block: Block, names: Sequence[str]) -> FrameBatch:
    """A block's frames with actions and masks numbered by `names`; an action nobody recorded a mask for is legal.

    Where the block has vectors as actions, which no names are expected for, they stay as they are.
    """
    own = block.layout.action_names
    if block.layout.action_low:
        if names:
            raise DataError(f"{block.source} has vectors as actions; expected only {', '.join(names)}.")
        _check_vectors(block)
        return FrameBatch(
            block.features, block.maps, block.actions, np.ones((len(block.actions), 0), np.bool_)
        )
    if not own:
        raise DataError(f"{block.source} has no `action_lookup`, so its action ids have no names to learn.")
    if not names:
        raise DataError(f"{block.source} has the actions {', '.join(own)}; expected vectors.")
    mask = (
        block.action_mask
        if block.action_mask is not None
        else np.ones((len(block.actions), len(own)), np.bool_)
    )
    if own == tuple(names):
        return FrameBatch(block.features, block.maps, block.actions, mask)
    unknown = [name for name in own if name not in names]
    if unknown:
        raise DataError(
            f"{block.source} has the actions {', '.join(unknown)}; expected only {', '.join(names)}."
        )
    columns = np.array([names.index(name) for name in own], np.int64)
    wide = np.full((len(block.actions), len(names)), block.action_mask is None)
    wide[:, columns] = mask
    return FrameBatch(block.features, block.maps, columns[block.actions], wide)


def _check_vectors(block: Block) -> None:
    """Refuse vectors that no environment of their bounds would have taken as they are."""
    legal = within_bounds(block.actions, block.layout.action_low, block.layout.action_high)
    if not legal.all():
        first = int(np.argmin(legal))
        raise DataError(
            f"{block.source}: {np.count_nonzero(~legal)} actions lie outside of their bounds, the first is "
            f"{block.actions[first].tolist()} in frame {first}. Capture it again."
        )


def label_of(path: Path) -> str:
    """What a dataset is called in messages and results."""
    return f"{path.parent.name}/{path.name}"


def doubts(replay: Replay) -> Iterator[str]:
    """What the user should know about a recording that was read, although it can be used."""
    if not isinstance(replay, SampleReplay):
        return
    manifest = replay.manifest
    if manifest.rejected:
        yield f"{manifest.path}: {len(manifest.rejected)} entries are marked `accepted: false` and were left out."
    if replay.unplaced > 1:
        yield (
            f"{manifest.path}: {replay.unplaced} samples do not say which town-episode they are part of, so each "
            f"counts as one of its own and agents of one town may stand on both sides of a split."
        )
    if manifest.duplicates:
        numbers = ", ".join(str(number) for number in manifest.duplicates)
        yield f"{manifest.path}: entries {numbers} name samples that earlier entries name and were left out."


def _rows(frames: FrameBatch, rows: NDArray[np.int64]) -> FrameBatch:
    """Copies of some frames."""
    maps = None if frames.maps is None else frames.maps[rows]
    return FrameBatch(frames.features[rows], maps, frames.actions[rows], frames.action_mask[rows])


def _joined(one: FrameBatch, other: FrameBatch) -> FrameBatch:
    maps = None if one.maps is None or other.maps is None else np.concatenate([one.maps, other.maps])
    return FrameBatch(
        np.concatenate([one.features, other.features]),
        maps,
        np.concatenate([one.actions, other.actions]),
        np.concatenate([one.action_mask, other.action_mask]),
    )
