"""Two threads for one batch: cut into pieces, each thread takes every other one.

Pieces depend on the number of rows alone and results come back in order, so that how threads are scheduled never
reaches a bit of what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

MOST_ROWS = 1024  # of a piece: what it is computed on stays in a core's own cache
Piece = TypeVar("Piece")
Done = TypeVar("Done")


def piece_rows(n: int) -> int:
    """Rows of each piece that n rows are cut into, so that both threads get equally many pieces.

    >>> [piece_rows(n) for n in (1000, 2048, 5000)]
    [500, 1024, 834]
    """
    return math.ceil(n / (2 * math.ceil(n / (2 * MOST_ROWS))))


class TwoLanes:
    """The calling thread, lane 0, and a second one, which lives as long as this."""

    def __init__(self) -> None:
        # Each thread has a number of threads of its own; by default, products would take all cores.
        self._second = ThreadPoolExecutor(1, "second-lane", initializer=torch.set_num_threads, initargs=(1,))

    def share_out(self, work: Callable[[int, Piece], Done], pieces: Sequence[Piece]) -> list[Done]:
        """What `work(lane, piece)` makes of every piece, in order; every other piece is lane 1's."""
        if len(pieces) == 1:
            return [work(0, pieces[0])]
        errors = np.geterr()  # NumPy keeps them by thread

        def every_other() -> list[Done]:
            with np.errstate(**errors):
                return [work(1, piece) for piece in pieces[1::2]]

        elsewhere = self._second.submit(every_other)
        try:
            here = [work(0, piece) for piece in pieces[::2]]
        finally:
            there = elsewhere.result()
        both = [*here, *there]
        both[::2], both[1::2] = here, there
        return both
