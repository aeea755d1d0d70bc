"""Demonstrations: flat frames to learn from, split by episode, in batches from memory or streamed from a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block
from townlet_train.data.layout import check_features
from townlet_train.data.memmap import Store
from townlet_train.data.replay import Replay, SampleReplay, open_replay
from townlet_train.data.trajectory import Maps
from townlet_train.errors import DataError

BLOCK_FRAMES = 1 << 15


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Every frame of a recording, with the observation and mask before the action."""

    features: NDArray[np.float32]  # (n_frames, n_features)
    maps: Maps | None  # (n_frames, channels, height, width); uint8 unless values are fractions
    actions: NDArray[np.int64]  # (n_frames,): index of action_names
    action_mask: NDArray[np.bool_]  # (n_frames, n_actions); all True where the recording has no masks
    episode: NDArray[np.int64]  # (n_frames,): frames of one town-episode share a number
    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    map_channels: tuple[str, ...]  # empty when there are no maps
    seeds: tuple[int, ...]  # what the recorded environments were reset with; empty when the files do not say
    label: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def n_episodes(self) -> int:
        return len(np.unique(self.episode))


class FrameBatch(NamedTuple):
    """Some frames to learn from together."""

    features: NDArray[np.float32]  # (batch_size, n_features)
    maps: Maps | None  # (batch_size, channels, height, width)
    actions: NDArray[np.int64]  # (batch_size,)
    action_mask: NDArray[np.bool_]  # (batch_size, n_actions)


def load_demonstrations(
    path: Path,
    *,
    with_maps: bool = True,
    feature_names: Sequence[str] | None = None,
    action_names: Sequence[str] | None = None,
) -> Demonstrations:
    """Read a manifest, a capture directory or a sample into memory.

    Actions are numbered by name: by `action_names` when given, otherwise in the order of first sight. Raises
    `DataError` when features are not those expected, when actions have no names, or when one is not among those
    expected.
    """
    replay = open_replay(path)
    check_sums(replay)
    blocks = [block.copy() for block in replay.blocks(n_frames=BLOCK_FRAMES, with_maps=with_maps)]
    layout = blocks[0].layout
    if feature_names is not None:
        check_features(layout.feature_names, feature_names, str(path))
    names = tuple(action_names) if action_names is not None else union_of_actions(blocks)
    frames = [renumbered(block, names) for block in blocks]
    features = np.concatenate([block.features for block in blocks])
    actions = np.concatenate([frame.actions for frame in frames])
    action_mask = np.concatenate([frame.action_mask for frame in frames])
    maps = _joined_maps(blocks)
    check_frames(features, actions, action_mask, str(path))
    return Demonstrations(
        features=features,
        maps=maps,
        actions=actions,
        action_mask=action_mask,
        episode=np.concatenate([block.episode for block in blocks]),
        feature_names=layout.feature_names,
        action_names=names,
        map_channels=layout.map_channels if maps is not None else (),
        seeds=replay.seeds,
        label=label_of(replay.path),
        warnings=tuple(doubts(replay)),
    )


def check_sums(replay: Replay) -> None:
    """Refuse a store whose bytes are not those that were captured; an npz checks its own when it is read."""
    if isinstance(replay, Store):
        for problem in replay.check_sums():
            raise DataError(f"{problem} Copy or capture it again.")


def check_frames(
    features: NDArray[np.float32], actions: NDArray[np.int64], action_mask: NDArray[np.bool_], where: str
) -> None:
    """Refuse features that are not finite and actions that their own mask forbids."""
    bad = int(np.count_nonzero(~np.isfinite(features).all(axis=1)))
    if bad:
        raise DataError(
            f"{where}: {bad} frames have features that are NaN or infinite; expected finite numbers."
        )
    illegal = int(np.count_nonzero(~np.take_along_axis(action_mask, actions[:, None], axis=1)))
    if illegal:
        raise DataError(f"{where}: {illegal} actions are forbidden by the mask of their own frame.")


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
    """One epoch over a recording of any size, each frame once, holding one block and one batch in memory.

    With `rng`, blocks come in random order and frames are shuffled within a block: an approximate shuffle, the price
    of constant memory.
    """
    check_batch_size(batch_size)
    rest: FrameBatch | None = None
    for block in replay.blocks(n_frames=block_frames, with_maps=with_maps, rng=rng):
        frames = renumbered(block, action_names)
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


def union_of_actions(blocks: Sequence[Block]) -> tuple[str, ...]:
    """Every action name that occurs in the blocks' layouts, in the order of first sight."""
    return tuple(
        dict.fromkeys(name for layout in {b.layout: None for b in blocks} for name in layout.action_names)
    )


def renumbered(block: Block, names: Sequence[str]) -> FrameBatch:
    """A block's frames with actions and masks numbered by `names`; an action nobody recorded a mask for is legal."""
    own = block.layout.action_names
    if not own:
        raise DataError(f"{block.source} has no `action_lookup`, so its action ids have no names to learn.")
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


def _joined_maps(blocks: Sequence[Block]) -> Maps | None:
    maps = [block.maps for block in blocks if block.maps is not None]
    if not maps:
        return None
    shapes = {array.shape[1:] for array in maps}
    if len(shapes) > 1 or len(maps) < len(blocks):
        raise DataError(
            f"{blocks[0].source} and the recordings beside it have different maps ({sorted(shapes)}). "
            f"Split them into datasets of one kind."
        )
    joined: Maps = np.concatenate(maps)  # type: ignore[assignment]  # numpy's stub loses the union of dtypes
    return joined


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
