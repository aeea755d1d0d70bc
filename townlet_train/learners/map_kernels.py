"""The map encoder's two products on a map that is almost empty, compiled: a few rows of weights for each agent.

A map of the town has some eight cells set of several hundred, so a dense product would multiply by zero most of the
time. What runs elementwise beside the products is here too, fused so that every array is passed over once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from townlet_train.sim.kernels import kernel

ZERO = np.float32(0)
BLOCK = 16  # bytes that are looked at together, most of them empty


@kernel
def find_cells(maps: Any, cells: Any, amounts: Any, ends: Any) -> None:
    """Cells that are set, and their values, row after row of `maps` (n, size); row i ends at `ends[i]`.

    `cells` holds n * size entries and one more: an entry is written before it is known to count, without a branch.
    """
    n, size = maps.shape
    in_blocks = size - size % BLOCK
    found = 0
    for i in range(n):
        start, row = found, maps[i]
        for first in range(0, in_blocks, BLOCK):
            any_set = np.uint8(0)
            for j in range(BLOCK):
                any_set |= row[first + j]
            if any_set:
                for j in range(first, first + BLOCK):
                    cells[found] = j
                    found += row[j] != 0
        for j in range(in_blocks, size):
            cells[found] = j
            found += row[j] != 0
        for k in range(start, found):
            amounts[k] = row[cells[k]]
        ends[i] = found


@kernel
def encode(
    cells: Any, amounts: Any, ends: Any, weight: Any, map_bias: Any, feature_bias: Any, hidden: Any
) -> None:
    """Both encoders' outputs (n, 2 * width): maps from cells, features from their product in the right half."""
    width = map_bias.shape[0]
    total = np.empty(width, np.float32)
    start = 0
    for i in range(ends.shape[0]):
        for c in range(width):
            total[c] = map_bias[c]
        k, end = start, ends[i]
        while k + 4 <= end:  # four rows at a time, so that `total` is read and written a quarter as often
            a, b, c_, d = amounts[k], amounts[k + 1], amounts[k + 2], amounts[k + 3]
            row_a, row_b = weight[cells[k]], weight[cells[k + 1]]
            row_c, row_d = weight[cells[k + 2]], weight[cells[k + 3]]
            for c in range(width):
                total[c] += (a * row_a[c] + b * row_b[c]) + (c_ * row_c[c] + d * row_d[c])
            k += 4
        while k < end:
            a, row_a = amounts[k], weight[cells[k]]
            for c in range(width):
                total[c] += a * row_a[c]
            k += 1
        start = end
        for c in range(width):
            hidden[i, c] = max(total[c], ZERO)
        for c in range(width):
            hidden[i, width + c] = max(hidden[i, width + c] + feature_bias[c], ZERO)


@kernel
def add_bias_and_rectify(outputs: Any, bias: Any) -> None:
    """relu(outputs + bias), in place, (n, width)."""
    for i in range(outputs.shape[0]):
        for c in range(bias.shape[0]):
            outputs[i, c] = max(outputs[i, c] + bias[c], ZERO)


@kernel
def backward_rectified(delta: Any, outputs: Any, of_bias: Any) -> None:
    """Slopes (n, width) behind a relu become those before it, in place; adds their sum to the bias's."""
    for i in range(delta.shape[0]):
        for c in range(of_bias.shape[0]):
            delta[i, c] = delta[i, c] if outputs[i, c] > ZERO else ZERO
            of_bias[c] += delta[i, c]


@kernel
def backward_encoders(
    cells: Any,
    amounts: Any,
    ends: Any,
    delta: Any,
    hidden: Any,
    of_weight: Any,
    of_map_bias: Any,
    of_feature_bias: Any,
) -> None:
    """Slopes (n, 2 * width) behind both encoders' relu become those before it; adds to the map layer's and biases'."""
    width = of_map_bias.shape[0]
    slope = np.empty(width, np.float32)
    start = 0
    for i in range(ends.shape[0]):
        for c in range(width):
            slope[c] = delta[i, c] if hidden[i, c] > ZERO else ZERO
            of_map_bias[c] += slope[c]
        for k in range(start, ends[i]):
            amount, row = amounts[k], of_weight[cells[k]]
            for c in range(width):
                row[c] += amount * slope[c]
        start = ends[i]
        for c in range(width):
            right = width + c
            delta[i, right] = delta[i, right] if hidden[i, right] > ZERO else ZERO
            of_feature_bias[c] += delta[i, right]
