"""Learning curves of a study as an SVG file, a panel for each kind of trunk; needs matplotlib, of an extra."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from townlet_train.errors import MissingExtraError, UsageError
from townlet_train.files import check_writable, make_folder, write_bytes
from townlet_train.results import StudyDTO, StudyRowDTO
from townlet_train.study.conditions import BC, CONDITIONS

PANEL_INCHES = (5.2, 3.9)
BAND_OPACITY = 0.12


def check_can_draw(path: Path) -> None:
    """Refuse a figure that could not be left at `path` when the study is done.

    Raises:
        MissingExtraError: nothing can be drawn.
        UsageError: the file is a directory, or named like something else than SVG.
        StorageError: no file can be written there.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("A figure", "figures")
    if path.suffix.lower() != ".svg" or path.is_dir():
        raise UsageError(
            f"{path} is no name for a figure, expected a file that ends in .svg. Give another --figure."
        )
    make_folder(path.parent)
    check_writable(path.parent)


def draw(study: StudyDTO, path: Path) -> None:
    """Mean return over training seeds beside steps, with its 95 % interval; the same study gives the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    trunks = list(dict.fromkeys(row.trunk for row in study.rows))
    width, height = PANEL_INCHES
    with matplotlib.rc_context({"svg.hashsalt": "townlet-train", "svg.fonttype": "none"}):  # same bytes
        figure = Figure(figsize=(width * len(trunks), height), layout="constrained")
        panels = figure.subplots(1, len(trunks), sharey=True, squeeze=False)[0]
        for panel, trunk in zip(panels, trunks, strict=True):
            _draw_panel(panel, study, trunk)
        panels[0].set_ylabel("mean return, sampled")
        handles, labels = panels[-1].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize="small", loc="outside right center")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    write_bytes(path, drawn.getvalue())


def _draw_panel(panel: Any, study: StudyDTO, trunk: str) -> None:
    for row in study.rows:
        if row.trunk == trunk:
            _draw_row(panel, study, row)
    panel.axhline(study.expert_return, color="black", linewidth=0.8, linestyle=":", label="expert")
    panel.set_title(f"{study.env}, {trunk} {'trunks' if trunk == 'separate' else 'trunk'}")
    panel.set_xlabel("environment steps")
    panel.spines[["top", "right"]].set_visible(False)


def _draw_row(panel: Any, study: StudyDTO, row: StudyRowDTO) -> None:
    colour = f"C{CONDITIONS.index(row.condition)}"
    steps = [budget.steps for budget in row.budgets]
    panel.plot(
        steps,
        [budget.return_mean for budget in row.budgets],
        color=colour,
        label=row.condition,
        linestyle="--" if row.condition == BC else "-",
    )
    lows, highs = ([getattr(budget, end) for budget in row.budgets] for end in ("return_low", "return_high"))
    panel.fill_between(steps, lows, highs, color=colour, alpha=BAND_OPACITY, linewidth=0)
