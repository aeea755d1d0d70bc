"""The folder of compiled kernels: other versions that nobody uses any more do not pile up."""

from __future__ import annotations

import os
from pathlib import Path

from townlet_train.sim.kernels import COMPLETE, prune

NOW = 1_000_000_000.0


def kernels(cache: Path, name: str, used: float, *, complete: bool = True) -> Path:
    folder = cache / name
    folder.mkdir()
    mark = folder / COMPLETE if complete else folder
    if complete:
        mark.touch()
    os.utime(mark, (used, used))
    return folder


def test_kernels_of_other_versions_go_when_nobody_used_them_for_long(tmp_path: Path) -> None:
    own = kernels(tmp_path, "kernels-own", NOW - 10)
    unused = kernels(tmp_path, "kernels-old", NOW - 10)
    torn = kernels(tmp_path, "kernels-torn", NOW - 10, complete=False)
    used = kernels(tmp_path, "kernels-other", NOW + 10)
    (tmp_path / "strategies.json").touch()
    prune(own, NOW)
    assert (own.exists(), used.exists(), unused.exists(), torn.exists()) == (True, True, False, False)
    assert (tmp_path / "strategies.json").exists()
