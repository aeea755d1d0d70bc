"""What cells say together: falls, and differences paired over training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from townlet_train.envs.streams import stream
from townlet_train.results import StudyBudgetDTO, StudyCellDTO, StudyRowDTO
from townlet_train.services.statistics import Sample, bootstrap_interval
from townlet_train.study.conditions import BC, SCRATCH

RESAMPLING_SEED = 20251121  # fixed, so that equal runs give equal intervals


class Scale(NamedTuple):
    """What falls are measured in."""

    random: float
    expert: float


Cells = Mapping[tuple[str, str], Sequence[StudyCellDTO]]  # by condition and trunk


def rows_of(cells: Sequence[StudyCellDTO], scale: Scale, budgets: Sequence[int]) -> tuple[StudyRowDTO, ...]:
    """A row for every condition and trunk, in the order they came in."""
    grouped: dict[tuple[str, str], list[StudyCellDTO]] = {}
    for cell in sorted(cells, key=lambda cell: cell.seed):
        grouped.setdefault((cell.condition, cell.trunk), []).append(cell)
    order = dict.fromkeys((cell.condition, cell.trunk) for cell in cells)
    return tuple(_row(grouped, condition, trunk, scale, budgets) for condition, trunk in order)


def deepest_fall(cell: StudyCellDTO, scale: Scale) -> float | None:
    """Where it was lowest beside its clone, percent of the way from random to the expert; below 0 where it fell.

    None for what began with no clone, or never left it.
    """
    if cell.condition in (BC, SCRATCH) or len(cell.curve) < 2:
        return None
    clone, *after = cell.curve
    lowest = min(point.return_mean for point in after)
    return 100 * (lowest - clone.return_mean) / (scale.expert - scale.random)


def return_at(cell: StudyCellDTO, steps: int) -> float:
    """The return after so many steps, on a straight line between what was measured before and after."""
    known = [point.steps for point in cell.curve]
    return float(np.interp(steps, known, [point.return_mean for point in cell.curve]))


def _row(cells: Cells, condition: str, trunk: str, scale: Scale, budgets: Sequence[int]) -> StudyRowDTO:
    own = cells[condition, trunk]
    falls = [fall for cell in own if (fall := deepest_fall(cell, scale)) is not None]
    released = {
        f"released_{name}": value
        for name, value in _differences(cells, condition, trunk, "released_return").items()
        if name in ("above_bc_low", "above_scratch_low")
    }
    return StudyRowDTO(
        condition=condition,
        trunk=trunk,
        runs=len(own),
        deepest_fall=fmean(falls) if falls else None,
        deepest_fall_worst=min(falls, default=None),
        final_return=fmean(cell.final_return for cell in own),
        released_return=fmean(cell.released_return for cell in own),
        **_differences(cells, condition, trunk, "final_return"),
        **released,
        faints_per_10k=_mean(cell.final_faints_per_10k for cell in own),
        released_faints_per_10k=_mean(cell.released_faints_per_10k for cell in own),
        budgets=tuple(_budget(cells, condition, trunk, steps) for steps in budgets),
    )


def _budget(cells: Cells, condition: str, trunk: str, steps: int) -> StudyBudgetDTO:
    values = np.array([return_at(cell, steps) for cell in cells[condition, trunk]])
    interval = _interval(values)
    return StudyBudgetDTO(
        steps=steps,
        return_mean=float(values.mean()),
        return_low=interval[0],
        return_high=interval[1],
        **_differences(cells, condition, trunk, steps),
    )


def _differences(cells: Cells, condition: str, trunk: str, what: str | int) -> dict[str, Any]:
    """Mean and bounds of the differences to the clone and to PPO from scratch, on the training seeds that both have."""
    found: dict[str, Any] = {}
    for baseline in (BC, SCRATCH):
        if baseline == condition or (baseline, trunk) not in cells:
            continue
        theirs = {cell.seed: _value(cell, what) for cell in cells[baseline, trunk]}
        pairs = [
            _value(cell, what) - theirs[cell.seed] for cell in cells[condition, trunk] if cell.seed in theirs
        ]
        if not pairs:
            continue
        low, high = _interval(np.array(pairs))
        name = f"above_{baseline}"
        found |= {name: fmean(pairs), f"{name}_low": low, f"{name}_high": high}
    return found


def _value(cell: StudyCellDTO, what: str | int) -> float:
    """A return by its name, or that after so many steps."""
    return return_at(cell, what) if isinstance(what, int) else float(getattr(cell, what))


def _interval(values: Sample) -> tuple[float, float]:
    return bootstrap_interval(values, stream(RESAMPLING_SEED, "study"))


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
