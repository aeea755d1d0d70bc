"""Frames gathered block by block into one array per column, each allocated once where the count is known before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.errors import DataError

SPLIT = "Split them into datasets of one kind."


class Columns:
    """Named arrays that grow together along their first axis; `n_expected` rows cost no copy."""

    def __init__(self, n_expected: int) -> None:
        self._n_expected = n_expected
        self._n_rows = 0
        self._arrays: dict[str, NDArray[Any]] = {}

    def append(self, rows: dict[str, NDArray[Any]], source: str) -> None:
        """Add rows of every column; raises `DataError` when `source` has other columns or shapes than came before."""
        if self._n_rows and set(rows) != set(self._arrays):
            raise DataError(f"{source} and the recordings beside it do not have the same arrays. {SPLIT}")
        n_rows = self._n_rows
        for name, array in rows.items():
            n_rows = self._n_rows + len(array)
            buffer = self._arrays.get(name)
            if buffer is None:
                buffer = np.empty((max(self._n_expected, n_rows), *array.shape[1:]), array.dtype)
            if buffer.shape[1:] != array.shape[1:]:
                raise DataError(
                    f"{source} and the recordings beside it have different {name}, {array.shape[1:]} and "
                    f"{buffer.shape[1:]}. {SPLIT}"
                )
            if len(buffer) < n_rows:
                buffer = np.concatenate(
                    [buffer[: self._n_rows], np.empty_like(buffer, shape=(n_rows, *array.shape[1:]))]
                )
            buffer = buffer.astype(np.promote_types(buffer.dtype, array.dtype), copy=False)
            buffer[self._n_rows : n_rows] = array
            self._arrays[name] = buffer
        self._n_rows = n_rows

    def __getitem__(self, name: str) -> NDArray[Any]:
        """(n_rows, ...): every row of a column."""
        return self._arrays[name][: self._n_rows]

    def get(self, name: str) -> NDArray[Any] | None:
        """The same, or None when there is no such column."""
        return self[name] if name in self._arrays else None
