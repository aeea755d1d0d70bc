"""Seeds that belong to the gate: numbered blocks far from those that training, capture and evaluation count up from.

A block once used for a decision has been seen. Whoever asks again takes the next one.
"""

from __future__ import annotations

from collections.abc import Iterable

from townlet_train.config import GateSettings, RunConfig
from townlet_train.config.gate import BLOCK_SIZE
from townlet_train.errors import UsageError

FIRST_SEEDS = {"v1": 30_000_000}  # by version of the numbering; a new version never reuses an old one's seeds


def first_block_seed(settings: GateSettings) -> int:
    """The first seed of the block.

    >>> first_block_seed(GateSettings(block=2))
    30020000
    """
    return FIRST_SEEDS[settings.block_version] + BLOCK_SIZE * settings.block


def block_seeds(settings: GateSettings) -> range:
    """The seeds of one gate, as many as it has episodes."""
    first = first_block_seed(settings)
    return range(first, first + settings.episodes)


def block_name(settings: GateSettings) -> str:
    """Version and number.

    >>> block_name(GateSettings(block=2))
    'v1/2'
    """
    return f"{settings.block_version}/{settings.block}"


def block_after(seeds: Iterable[tuple[int, int]]) -> int:
    """The number of the first block beyond all of these runs of seeds, (first, last) each.

    >>> block_after([]), block_after([(7, 9)]), block_after([(30_000_000, 30_000_255), (30_020_000, 30_020_255)])
    (0, 0, 3)
    """
    settings = GateSettings()
    first = FIRST_SEEDS[settings.block_version]
    return max((max(last - first, -1) // BLOCK_SIZE + 1 for _, last in seeds), default=settings.block)


def check_block_unseen(config: RunConfig) -> None:
    """Raise `UsageError` when the run's own seeds, those that select checkpoints, reach into the gate's block."""
    seeds = block_seeds(config.gate)
    first, last = config.evaluation.seed, config.evaluation.seed + config.evaluation.episodes - 1
    if first <= seeds[-1] and last >= seeds[0]:
        raise UsageError(
            f"Evaluation seeds {first} to {last} select checkpoints and reach into block {block_name(config.gate)} of "
            f"the gate, {seeds[0]} to {seeds[-1]}. Choose another --block or evaluation.seed."
        )
