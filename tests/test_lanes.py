"""Two lanes: pieces come back in order, wherever they were done, and no trouble in either lane is lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.lanes import MOST_ROWS, TwoLanes, piece_rows  # noqa: E402


@pytest.mark.parametrize("n_pieces", [1, 2, 5])
def test_pieces_come_back_in_order_and_lanes_are_threads(n_pieces: int) -> None:
    threads: dict[int, set[int]] = {0: set(), 1: set()}

    def work(lane: int, piece: int) -> int:
        threads[lane].add(threading.get_ident())
        return 10 * piece

    assert TwoLanes().share_out(work, range(n_pieces)) == [10 * piece for piece in range(n_pieces)]
    assert threads[0] == {threading.get_ident()}
    assert len(threads[1]) == (n_pieces > 1)
    assert not threads[0] & threads[1]


@pytest.mark.parametrize("lane", [0, 1])
def test_a_failure_in_either_lane_is_raised(lane: int) -> None:
    def work(at: int, piece: int) -> None:
        if at == lane:
            raise ArithmeticError(f"lane {at}")

    with pytest.raises(ArithmeticError, match=f"lane {lane}"):
        TwoLanes().share_out(work, range(4))


def test_numpy_takes_errors_alike_in_both_lanes() -> None:
    with np.errstate(over="ignore", divide="raise"):
        seen = TwoLanes().share_out(lambda lane, piece: np.geterr(), range(2))
    assert seen[0] == seen[1]
    assert seen[1]["divide"] == "raise"


@pytest.mark.parametrize("n", [2, 511, 2048, 2049, 10_000])
def test_both_lanes_get_equally_many_pieces_of_bearable_size(n: int) -> None:
    rows = piece_rows(n)
    assert rows <= MOST_ROWS
    assert -(-n // rows) % 2 == 0
