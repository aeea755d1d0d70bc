"""`townlet-train compare`: which training method is better, by runs of several seeds each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput
from townlet_train.cli.output import emit

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Run directories, or their ..._results.json files.")
]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="NAME", help="Group by the strategy, or by a param; repeatable."),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="A run's value: evaluation.mean, evaluation.iqm or final_reward_mean; else the first that all have.",
    ),
]


def command(
    runs: Runs,
    by: By = None,
    metric: Metric = None,
    json_output: JsonOutput = False,
) -> int:
    """Compare training methods: interquartile means over runs, their intervals, and who is likelier to win.

    The unit is the training run with its seed; episodes of one run say nothing about its method.
    """
    from townlet_train.services.comparison import compare_runs

    return emit(compare_runs(runs, by=tuple(by or ("strategy",)), metric=metric), json_output=json_output)
