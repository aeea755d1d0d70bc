"""Frames that are there more than once, found in memory that does not grow with the recording.

A frame is told by a digest of what was seen and done. Digests are looked at in passes, each of which takes the share of
them that fits; a recording of `PASS_FRAMES` frames or fewer is read once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.block import Block
from townlet_train.data.replay import Replay

PASS_FRAMES = 1 << 22
BLOCK_FRAMES = 1 << 12
DIGEST_BYTES = 8


class Repeats(NamedTuple):
    """How often frames are there again."""

    within: int  # frames equal to an earlier one of the same recording
    shared: int  # frames of the other recording that are in this one, too


def count_repeats(replay: Replay, other: Replay | None = None, *, pass_frames: int = PASS_FRAMES) -> Repeats:
    """Frames of `replay` that are there again, and frames of `other` that are in `replay`.

    Two frames are equal when features, maps, and the name of the action, or the vector, are.
    """
    n_passes = max(1, -(-replay.n_frames // pass_frames))
    within = shared = 0
    for number in range(n_passes):
        every = [np.zeros(0, np.uint64), *(own[own % n_passes == number] for own in _digests(replay))]
        found = np.concatenate(every)
        different = np.unique(found)
        within += len(found) - len(different)
        if other is not None:
            for theirs in _digests(other):
                mine = theirs[theirs % n_passes == number]
                shared += int(np.isin(mine, different).sum())
    return Repeats(within, shared)


def _digests(replay: Replay) -> Iterator[NDArray[np.uint64]]:
    """(n_frames,): a digest of each frame, block by block."""
    for block in replay.blocks(n_frames=BLOCK_FRAMES):
        yield _digests_of(block)


def _digests_of(block: Block) -> NDArray[np.uint64]:
    names = block.layout.action_names
    actions = (
        [row.tobytes() for row in block.actions]
        if block.layout.action_low
        else [(names[action] if names else str(action)).encode() for action in block.actions.tolist()]
    )
    rows = [_rows(block.features), *([] if block.maps is None else [_rows(block.maps)])]
    digests = bytearray()
    for index, action in enumerate(actions):
        digest = hashlib.blake2b(action, digest_size=DIGEST_BYTES)
        for row in rows:
            digest.update(row[index])
        digests += digest.digest()
    return np.frombuffer(bytes(digests), np.uint64)


def _rows(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(n_frames, n_bytes): the bytes of each frame's part of an array."""
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
